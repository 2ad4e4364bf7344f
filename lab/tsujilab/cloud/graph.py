"""Runs the tasks of `lab up`: each as soon as those it needs are done, side by side where they don't need each other.

A task is a Service (started, then ready) or a Step (a command that ends). A step may be done once for all: then a
file in the lab keeps the version for which it was done.
"""

import concurrent.futures
import sys
import threading
import time
from dataclasses import dataclass

from tsujilab.cloud.instance import KEPT
from tsujilab.cloud.service import Service


@dataclass
class Step:
    """act(lab, done): done is the version for which it was done last, or None. once(lab): the version for which it
    should be done; the step is skipped when that is the same. Without `once` it is done at each `up`."""

    name: str
    act: object
    needs: tuple = ()
    once: object = None
    what: str = ""

    def run(self, lab):
        """Does the step, when it is not done; returns whether it did."""
        mark = lab.path(f"{KEPT}/done-{self.name}")
        done = mark.read_text() if mark.exists() else None
        wanted = self.once(lab) if self.once else None
        if self.once and done == wanted:
            return False
        self.act(lab, done)
        if self.once:
            mark.write_text(wanted)
        return True


class Progress:
    """Lines for a person, with the seconds since the start; safe to call from several threads."""

    def __init__(self, stream=None):
        self.began, self.lock, self.stream = time.monotonic(), threading.Lock(), stream or sys.stderr

    @property
    def elapsed(self):
        return time.monotonic() - self.began

    def __call__(self, line):
        with self.lock:
            print(f"[{self.elapsed:4.0f} s] {line}", file=self.stream, flush=True)


def perform(lab, task, tell):
    """Does one task and tells about it."""
    began = time.monotonic()
    if isinstance(task, Service):
        running = task.pid(lab)
        task.start(lab)
        if not running:
            tell(f"{task.name}: ready after {time.monotonic() - began:.1f} s" + (f", {task.url}" if task.url else ""))
    else:
        if task.what and (not task.once or not lab.path(f"{KEPT}/done-{task.name}").exists()):
            tell(f"{task.name}: {task.what}")
        if task.run(lab) and time.monotonic() - began > 1:
            tell(f"{task.name}: done after {time.monotonic() - began:.1f} s")


def run_all(lab, tasks, tell):
    """Does all tasks in the order of their needs. On the first failure starts nothing more, lets what has begun end,
    and raises that failure."""
    waiting, running, done, failure = {task.name: task for task in tasks}, {}, set(), None
    for task in tasks:
        unknown = set(task.needs) - set(waiting)
        assert not unknown, f"{task.name} needs {unknown}, which is no task"
    pool = concurrent.futures.ThreadPoolExecutor(len(tasks))
    try:
        while running or (waiting and not failure):
            for task in [task for task in waiting.values() if not failure and done >= set(task.needs)]:
                del waiting[task.name]
                running[pool.submit(perform, lab, task, tell)] = task
            assert running, f"tasks that need each other: {', '.join(waiting)}"
            ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                done.add(running.pop(future).name)
                if future.exception() and not failure:
                    failure = future.exception()
                    if running:
                        names = ", ".join(task.name for task in running.values())
                        tell(f"a part failed; waiting for {names} to end")
    finally:
        pool.shutdown(wait=False)
    if failure:
        raise failure
