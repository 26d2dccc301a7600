"""The rollout engine: concurrency, randomness, and trajectories that the infrastructure failed."""

import asyncio
import threading

import pytest

from thinkimg.training.rollouts import Request, RolloutEngine, seed_of
from thinkimg.trajectory import Task, Trajectory


class FakeAgent:
    """Answers with its seed; fails the first `failures` attempts at each task."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.attempts: dict[str, int] = {}
        self.running = self.most = 0
        self.threads: set[int] = set()

    async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
        self.threads.add(threading.get_ident())
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0.01)
        self.running -= 1
        self.attempts[task.id] = self.attempts.get(task.id, 0) + 1
        failed = self.attempts[task.id] <= self.failures
        return Trajectory(question=task.question, status="infrastructure" if failed else "answered", answer=str(seed))


def task(name: str) -> Task:
    return Task(name, "?", ())


def test_results_come_in_the_order_of_the_requests_and_run_together_on_one_thread() -> None:
    agent = FakeAgent()
    with RolloutEngine(agent, seed=3) as engine:
        requests = [Request(task("a"), "0/a", n) for n in range(20)]
        made = engine.run(requests) + engine.run(requests)
    expected = [str(seed_of(3, "0/a", n)) for n in range(20)]
    assert [trajectory.answer for trajectory in made] == expected * 2
    assert agent.most == 20
    assert len(agent.threads) == 1
    assert threading.get_ident() not in agent.threads


def test_concurrency_is_bounded() -> None:
    agent = FakeAgent()
    with RolloutEngine(agent, concurrency=3) as engine:
        engine.run([Request(task(str(n)), str(n)) for n in range(12)])
    assert agent.most == 3


def test_seeds_are_63_bits_and_depend_on_each_part() -> None:
    seeds = {
        seed_of(seed, row, generation) for seed in (0, 1) for row in ("1/1", "11", "1") for generation in (0, 1, 11)
    }
    assert len(seeds) == 2 * 3 * 3
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_of(1, "a", 2) == seed_of(1, "a", 2)


def test_a_failed_trajectory_is_run_again_with_its_seed() -> None:
    with RolloutEngine(FakeAgent(failures=2), attempts=3, backoff_seconds=0) as engine:
        (trajectory,) = engine.run([Request(task("a"), "0/a", 1)])
    assert trajectory.status == "answered"
    assert trajectory.meta.pop("start") > 0
    assert trajectory.meta == {"row": "0/a", "generation": 1, "attempt": 2}
    assert trajectory.answer == str(seed_of(0, "0/a", 1))


def test_after_the_last_attempt_the_failure_is_returned() -> None:
    agent = FakeAgent(failures=9)
    with RolloutEngine(agent, attempts=2, backoff_seconds=0) as engine:
        (trajectory,) = engine.run([Request(task("a"), "0/a")])
    assert trajectory.status == "infrastructure"
    assert agent.attempts == {"a": 2}


def test_a_bug_in_an_agent_is_raised_and_the_engine_goes_on() -> None:
    class Broken(FakeAgent):
        async def run(self, task: Task, seed: int, temperature: float = 1.0) -> Trajectory:
            if task.id == "bad":
                raise KeyError("a bug")
            return await super().run(task, seed, temperature)

    agent = Broken()
    with RolloutEngine(agent) as engine:
        with pytest.raises(KeyError):
            engine.run([Request(task("good"), "1"), Request(task("bad"), "2")])
        assert engine.run([Request(task("good"), "1")])[0].status == "answered"
    engine.close()  # a second time does no harm
