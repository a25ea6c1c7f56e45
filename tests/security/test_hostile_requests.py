"""Association requests that no careful peer sends: read in a process that everybody depends on, refused and no more."""

import random

import pytest

from appliance.intake.negotiation import BadRequest, agree, read_request
from tests.support.hostile_pdus import _CHANGES, ASSOCIATE_RQ, EVENTS, associate_rq


@pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, about UIDs; the appliance drops them
def test_whatever_an_association_request_holds_only_a_bad_request_escapes() -> None:
    dice, answered, refused = random.Random(7), 0, 0
    whole = [event for event in EVENTS.values() if event[0] == ASSOCIATE_RQ]
    for _ in range(1_500):
        hostile = dice.choice(whole)
        for _ in range(dice.randrange(1, 4)):
            hostile = dice.choice(_CHANGES)(dice, hostile)
        try:
            agree(read_request(bytes([ASSOCIATE_RQ]) + hostile[1:]))
            answered += 1
        except BadRequest:
            refused += 1
    assert agree(read_request(associate_rq())).contexts
    assert min(answered, refused) > 100, "both kinds must have been tried"
