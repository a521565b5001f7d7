"""What an operator's Prometheus scrapes of a server: rounds, replies, who was dropped, where the time goes."""

import importlib.util
from typing import TYPE_CHECKING

from flsec.aggregation._gram import is_whole
from flsec.errors import ConfigError
from flsec.strategies.report import KINDS, RoundReport

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["PrometheusMetrics"]

_SECONDS = (0.001, 0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


class PrometheusMetrics:
    """Serve a server's rounds as Prometheus metrics, as ``on_verdict=`` of a strategy.

    The metrics, all of whose names begin with ``flsec_``: ``rounds_total``, ``rounds_kept_previous_model_total``,
    ``last_round``, ``last_round_timestamp_seconds``, ``clients_asked``, ``clients_usable``, ``clients_kept`` (of the
    last round), ``clients_dropped_total`` by ``defense``, ``clients_quarantined_total`` by ``reason``, and
    ``stage_seconds`` by ``stage``. No label holds anything that a client wrote, so that none can make time series.

    Args:
        port: of the HTTP server; 0: one that is free. None: no server, for one that has its own for ``registry``.
        host: its address. The default is this machine alone; metrics have no password, so let only the Prometheus
            server reach another address.
        registry: where the metrics are registered. None: one of its own, so that several in a process do not collide.

    Attributes:
        port: the port that is served; None without a server.
        registry: where the metrics are registered.

    Raises:
        ConfigError: prometheus_client is not installed, the port is taken or is none, or the registry has these
            metrics already.

    Example:
        >>> from flwr.serverapp.strategy import FedAvg
        >>> from flsec.strategies import Krum
        >>> metrics = PrometheusMetrics(port=0)
        >>> strategy = Krum(FedAvg(), num_byzantine=2, on_verdict=metrics)
        >>> metrics(RoundReport(7, (), (), None, {"parse": 0.1}, asked=20, usable=18))
        >>> metrics.registry.get_sample_value("flsec_clients_usable")
        18.0
        >>> metrics.close()
    """

    def __init__(
        self, port: int | None = 9464, host: str = "127.0.0.1", registry: "CollectorRegistry | None" = None
    ) -> None:
        if port is not None and not (is_whole(port) and 0 <= port <= 65535):
            raise ConfigError(
                f"PrometheusMetrics: port must be a whole number from 0 to 65535; got {port!r}. 0 takes one that is "
                "free, None serves none.",
                parameter="port",
            )
        if importlib.util.find_spec("prometheus_client") is None:
            raise ConfigError('PrometheusMetrics needs prometheus_client. Install it: pip install "flsec[prometheus]".')
        from prometheus_client import CollectorRegistry, start_http_server

        self.registry = CollectorRegistry() if registry is None else registry
        try:
            self._register(self.registry)
        except ValueError as error:
            raise ConfigError(
                f"PrometheusMetrics: the registry has these metrics already ({error}). Leave registry out, or share "
                "one PrometheusMetrics.",
                parameter="registry",
            ) from None
        self.port: int | None = None
        if port is None:
            return
        try:
            self._server, self._thread = start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ConfigError(
                f"PrometheusMetrics: cannot listen on {host}:{port}: {error.strerror or error}. Take another port; "
                "port=0 takes one that is free.",
                parameter="port",
            ) from None
        self.port = self._server.server_port

    def _register(self, registry: "CollectorRegistry") -> None:
        from prometheus_client import Counter, Gauge, Histogram

        self._rounds = Counter("flsec_rounds", "Rounds that ended.", registry=registry)
        self._kept_previous = Counter(
            "flsec_rounds_kept_previous_model", "Rounds that gave no new model.", registry=registry
        )
        self._last_round = Gauge("flsec_last_round", "Number of the last round.", registry=registry)
        self._when = Gauge(
            "flsec_last_round_timestamp_seconds", "When the last round ended, in Unix time.", registry=registry
        )
        self._asked = Gauge("flsec_clients_asked", "Clients asked in the last round.", registry=registry)
        self._usable = Gauge("flsec_clients_usable", "Usable replies of the last round.", registry=registry)
        self._kept = Gauge("flsec_clients_kept", "Clients that were kept in the last round.", registry=registry)
        self._dropped = Counter(
            "flsec_clients_dropped", "Clients that a defense dropped.", ["defense"], registry=registry
        )
        self._quarantined = Counter(
            "flsec_clients_quarantined", "Replies dropped before any rule, or missing.", ["reason"], registry=registry
        )
        for kind in KINDS:  # from zero on, so that the first one shows as an increase
            self._quarantined.labels(kind)
        self._seconds = Histogram(
            "flsec_stage_seconds",
            "Time on the server: parsing, each defense, the wrapped strategy.",
            ["stage"],
            registry=registry,
            buckets=_SECONDS,
        )

    def __call__(self, report: RoundReport) -> None:
        """Count a round."""
        self._rounds.inc()
        self._kept_previous.inc(report.kept_previous_model is not None)
        self._last_round.set(report.round)
        self._when.set_to_current_time()
        self._asked.set(report.asked)
        self._usable.set(report.usable)
        self._kept.set(len(report.kept))
        for entry in report.quarantined:
            self._quarantined.labels(entry.kind).inc()
        for verdict in report.verdicts:
            self._dropped.labels(verdict.defense).inc(len(verdict.dropped))
        for stage, seconds in report.seconds.items():
            self._seconds.labels(stage).observe(seconds)

    def close(self) -> None:
        """End the HTTP server; the metrics stay in the registry."""
        if self.port is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self.port = None
