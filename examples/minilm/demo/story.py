"""The demonstration from beginning to end: the composition root of ``scripts/demo``."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from examples.minilm.demo import cost, similarity, traffic
from examples.minilm.demo.clients import Client
from examples.minilm.demo.console import Console
from examples.minilm.demo.interruption import Interruption
from examples.minilm.demo.keeping import keep_serving
from examples.minilm.demo.repository import MODEL, PIPELINE, build
from examples.minilm.demo.server import choose_ports, serving, status
from triton_router.cli import output
from triton_router.cli.main import EXIT_INTERRUPTED
from triton_router.errors import ModelFileError, TritonRouterError, mapping_of

if TYPE_CHECKING:
    from pathlib import Path

    from examples.minilm.demo.server import Server


@dataclass(frozen=True, slots=True)
class Effort:
    """How much the demonstration sends.

    Attributes:
        traffic_seconds: Longest time of the mixed traffic.
        traffic_requests: Most requests of it.
        rounds: Most rounds of the comparison.
        round_requests: Requests of one round to each choice.
        compare_seconds: No round of the comparison begins after this.
    """

    traffic_seconds: float
    traffic_requests: int
    rounds: int
    round_requests: int
    compare_seconds: float


EFFORT = Effort(traffic_seconds=20, traffic_requests=3000, rounds=8, round_requests=24, compare_seconds=30)
QUICK = Effort(traffic_seconds=5, traffic_requests=300, rounds=3, round_requests=6, compare_seconds=10)


def tell(directory: Path, effort: Effort, *, keep: bool) -> int:
    """Run the demonstration.

    Returns:
        0; 1 if something failed or an answer was wrong; 130 if it was interrupted before its end.
    """
    story = _Story(directory, effort, keep=keep)
    with story.interruption.watched():
        try:
            return story.run()
        except TritonRouterError as error:
            output.print_error(error)
            return mapping_of(error).exit_code
        except KeyboardInterrupt:
            story.console.say("stopped" if story.told else "interrupted; what the demo had started has ended")
            return 0 if story.told else EXIT_INTERRUPTED


class _Story:
    def __init__(self, directory: Path, effort: Effort, *, keep: bool) -> None:
        self.console = Console()
        self.interruption = Interruption()
        self.told = False
        self._directory = directory
        self._effort = effort
        self._keep = keep

    def run(self) -> int:
        started = time.monotonic()
        repository = self._directory / "models"
        repository.mkdir(parents=True, exist_ok=True)
        with self.console.part("Compile the model into variants, and write the pipeline"):
            build(repository, self.console, self.interruption)
        with ExitStack() as stack:
            with self.console.part("Start Triton"):
                ports = choose_ports(keep=self._keep, console=self.console)
                log = self._directory / "triton.log"
                server = stack.enter_context(serving(repository, ports, log, self.console, self.interruption))
            self._send_traffic(server)
            with Client("grpc", server.grpc) as client:
                right = self._judge(client)
                self._compare(client, server)
            self._summarise(time.monotonic() - started)
            if not right:
                raise ModelFileError(
                    "answers are wrong: see part 4 above",
                    hint=f"delete {self._directory} and run the demo again; if it stays, please report it",
                )
            self.told = True
            if self._keep:
                keep_serving(server, self.console)
        return 0

    def _send_traffic(self, server: Server) -> None:
        effort = self._effort
        with self.console.part(f"Send sentences through {PIPELINE}: {len(traffic.PROTOCOLS)} clients, mixed batches"):
            seen = traffic.send(server, self.console, seconds=effort.traffic_seconds, count=effort.traffic_requests)
            protocols = ", ".join(f"{count} by {name}" for name, count in seen.requests.items())
            self.console.show(
                f"{seen.total} requests ({protocols}) with {seen.sentences} sentences in {seen.seconds:.1f} s, no error"
            )
            self.console.show(f"what the routed model {MODEL!r} did with them:\n")
            output.print_table(*traffic.table(status(MODEL, server)))
            self.console.say(
                "times are from the decision to the answer; predicted and measured are means over the same requests"
            )

    def _judge(self, client: Client) -> bool:
        with self.console.part("Are the answers right?"):
            found = similarity.nearest(client)
            headers = ("question", "nearest of the sentences", "cosine", "")
            rows = [(n.query, n.sentence, f"{n.cosine:.3f}", "" if n.right else "WRONG TOPIC") for n in found]
            output.print_table(headers, rows)
            self.console.say("\ncomparing every embedding with the original PyTorch model's ...")
            agreed = similarity.agreement(client)
            headers = ("embeddings from", "smallest cosine", "mean cosine", "limit", "")
            output.print_table(
                headers,
                [
                    (a.way, f"{a.smallest:.5f}", f"{a.mean:.5f}", a.limit, "right" if a.right else "WRONG")
                    for a in agreed
                ],
            )
        return all(n.right for n in found) and all(a.right for a in agreed)

    def _compare(self, client: Client, server: Server) -> None:
        effort = self._effort
        with self.console.part("What does each choice cost? The same tokenised requests to each, in turns, one client"):
            before = _chosen(status(MODEL, server))
            costs = cost.measure(
                client,
                self.console,
                rounds=effort.rounds,
                requests=effort.round_requests,
                seconds=effort.compare_seconds,
            )
            after = _chosen(status(MODEL, server))
            output.print_table(*cost.table(costs))
            self.console.say(
                f"the last column: ratio of the mean latencies of one round, median over {len(costs[0].rounds)} rounds"
            )
            went = {name: after[name] - before[name] for name in after}
            total = sum(went.values()) or 1
            self.console.show(
                "routed went to " + ", ".join(f"{name} {count / total:.0%}" for name, count in went.items())
            )

    def _summarise(self, seconds: float) -> None:
        self.console.say("")
        for title, took in self.console.durations:
            self.console.say(f"{took:6.1f} s  {title}")
        self.console.say(f"{seconds:6.1f} s  in all")


def _chosen(routed: dict[str, Any]) -> dict[str, int]:
    return {target["target"]["name"]: target["chosen"] for target in routed["targets"]}
