"""One reader for all tests of a process: starting one takes longer than most tests."""

import atexit

from appliance.intake.limited_reading import LimitedReading

READING = LimitedReading()
atexit.register(READING.stop)
