"""What SIREN's server and clients call what they tell each other: settings downwards, the alarm upwards."""

from typing import Literal

__all__ = ["ALARM", "ALARM_RULE", "CLIENT_TOLERANCE", "HELD_OUT", "ROLLED_BACK", "AlarmRule"]

AlarmRule = Literal["tolerance", "paper", "relative"]

ALARM = "siren-alarm"
ALARM_RULE = "siren-alarm-rule"
CLIENT_TOLERANCE = "siren-client-tolerance"
HELD_OUT = "siren-held-out"
ROLLED_BACK = "siren-rolled-back"
