"""The command ``flsec figure``: a figure of runs, for a paper."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["figure"]


def figure(
    paths: Annotated[list[Path], typer.Argument(help="Folders of runs or of a sweep, such as runs/quickstart.")],
    kind: Annotated[str, typer.Option(help="curve, heatmap, clients or trade-off.")] = "curve",
    output: Annotated[
        Path | None, typer.Option(help="The file; pdf, svg or png by its ending. By default KIND.pdf.")
    ] = None,
    measure: Annotated[
        str, typer.Option(help="Of curves and heat maps: accuracy, or an attack's success as the run names it.")
    ] = "accuracy",
) -> None:
    """Draw runs for a paper: means over seeds with their 95 % intervals.

    Example: flsec figure runs/attack_table --kind heatmap --output table.pdf
    """
    from flsec.errors import ConfigError
    from flsec.simulations.figure_style import FORMATS, figures, save_figure
    from flsec.simulations.studies.run_figures import draw
    from flsec.simulations.studies.run_set import RunSet

    target = output or Path(f"{kind}.pdf")
    if target.suffix.lstrip(".").lower() not in FORMATS:
        raise ConfigError(f"--output: a figure ends in .{', .'.join(FORMATS)}; got {str(target)!r}. Try {kind}.pdf")
    found = RunSet.read(paths)
    with figures() as plt:
        drawn = draw(plt, kind, found, measure)
        save_figure(drawn, target)
    typer.echo(f"Figure: {target}")
