"""What is tried out on a copy of the state: nothing of the state is forgotten when it is copied, or changed by it."""

from __future__ import annotations

from muster.scheduling.config import SchedulerConfig
from muster.scheduling.state import State
from muster.scheduling.trial import on_trial

_READ = "config policy packer pods claims ended promises empty leaving pressed losses _total"
SHARED = {"queues", *_READ.split()}
"""What a trial only reads, beside plain values; and the queues, which take changes back."""


def test_every_part_of_the_state_is_copied_or_known_to_be_shared() -> None:
    state = State(SchedulerConfig())
    with on_trial(state) as trial:
        shared = {name for name, value in vars(state).items() if vars(trial)[name] is value}
    fixed = {name for name in shared if isinstance(vars(state)[name], int | float | str | None)}
    assert shared - fixed <= SHARED, "an attribute of State that a trial would change: copy it in on_trial"
    assert vars(state).keys() >= SHARED, "SHARED names something that is no more"


def test_changes_of_a_trial_stay_in_it() -> None:
    state = State(SchedulerConfig())
    with on_trial(state) as trial:
        trial.nodes_changed()
        trial.free_room(trial.table.vector(trial.total))
        trial.stirred = True
    assert (state.nodes_version, state.freed, state.freed_times, state.stirred) == (0, 0, 0, False)
    assert state.freed_amounts == []
