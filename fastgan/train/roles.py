"""What a rank of `split` has beside the state of any run: its role, the ranks of that role, and the ways of weights."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
import torch.distributed as torch_dist
from torch import Tensor, nn

from fastgan.dist import World, subgroup
from fastgan.parallel.pieces import Part, elsewhere, named_tensors, replicated
from fastgan.parallel.publish import Channel, FlatCopy
from fastgan.schedule import Network, ScheduleState, Split

NETWORKS: tuple[Network, Network] = ("discriminator", "generator")


@dataclass(frozen=True)
class Roles:
    """One rank's view of who does what.

    role: the network that this rank trains; it only reads the other one.
    own: this rank among those of its role.
    everybody: all ranks, in a group of its own for what is agreed on while other collectives are under way.
    channels: the ways of weights that end at this rank, by the network that they carry.
    """

    policy: Split
    role: Network
    own: World
    everybody: World
    groups: Mapping[Network, torch_dist.ProcessGroup]
    channels: dict[Network, Channel] = field(default_factory=dict)

    @property
    def other(self) -> Network:
        """The network that this rank only reads."""
        return "generator" if self.role == "discriminator" else "discriminator"

    @property
    def replica(self) -> Channel:
        """Where the weights that this rank only reads arrive."""
        return self.channels[self.other]

    @property
    def leaders(self) -> dict[Network, int]:
        """The first rank of each role, of all ranks of the run."""
        return {network: group[0] for network, group in zip(NETWORKS, self.policy.groups, strict=True)}

    def world_of(self, network: Network) -> World:
        """The ranks that train `network`; as seen by this rank if it is one of them, else by their first."""
        if network == self.role:
            return self.own
        return World(0, len(self.policy.groups[NETWORKS.index(network)]), self.own.local_rank, is_launched=True)

    def open_channels(self, networks: Mapping[Network, nn.Module]) -> None:
        """Prepares the publications that this rank takes part in; nothing is sent."""
        for route in self.policy.routes:
            if self.everybody.rank in route.group:
                self.channels[route.network] = Channel(
                    route.network,
                    named_tensors(networks[route.network]),
                    source=route.source,
                    group=self.groups[route.network],
                    num_buffers=self.policy.bound // self.policy.publish_every + 1,
                )

    def settle(self) -> None:
        """Waits for all publications that this rank has started; what arrives is read when its time has come."""
        for channel in self.channels.values():
            channel.settle()

    def restore(self, state: ScheduleState, saved: Mapping[Network, Mapping[str, Tensor]]) -> bool:
        """Goes on from `state` with the other network's weights of a checkpoint, or with those that it has now.

        Args:
            saved: what each network's `Channel.at_hand` was; empty where the checkpoint has none.
        Returns:
            Whether the checkpoint has all that plans will read, so that the run goes on as if it had not stopped.
        """
        at_hand = {network: _by_version(saved.get(network, {})) for network in NETWORKS}
        kept = {name: self.policy.kept(state, [step for step, _ in found]) for name, found in at_hand.items()}
        is_whole = all(kept.values())
        if is_whole:
            found = at_hand[self.other]
            self.replica.restore((*key, found[key]) for key in found if key[0] in kept[self.other])
        else:
            number = state.generator_updates if self.other == "generator" else state.discriminator_updates
            self.replica.step, self.replica.version = state.step, number
        return is_whole

    def parts(self, average: nn.Module) -> dict[str, Part]:
        """What this rank must save beside networks and optimizers; call it when publications have settled."""
        group = self.own.group
        parts = {"generator_ema": elsewhere()}
        if self.role == "generator":
            parts["generator_ema"] = replicated(named_tensors(average), group)
        return parts | {f"{self.other}_published": replicated(self.replica.at_hand(), group)}

    def bring_average(self, average: nn.Module, device: torch.device) -> nn.Module | None:
        """The generator's average on rank 0, which has only its shapes; None on the others. All ranks call it."""
        source, rank = self.leaders["generator"], self.everybody.rank
        if rank not in (0, source):
            return None
        travelling = FlatCopy(named_tensors(average), device="cpu")
        if rank == source:
            travelling.fill(named_tensors(average), step=0, version=0)
            torch_dist.send(travelling.bytes, dst=0, group=self.everybody.group)
            return None
        torch_dist.recv(travelling.bytes, src=source, group=self.everybody.group)
        whole = copy.deepcopy(average).to_empty(device=device)
        travelling.copy_to(named_tensors(whole))
        return whole


def make_roles(policy: Split, world: World, *, timeout_seconds: float) -> Roles:
    """The roles of `policy`; all ranks call it together."""
    groups = [subgroup(group, timeout_seconds=timeout_seconds) for group in policy.groups]
    published = {route.network: subgroup(route.group, timeout_seconds=timeout_seconds) for route in policy.routes}
    late = subgroup(range(world.num_ranks), timeout_seconds=timeout_seconds)
    place = next(place for place, group in enumerate(policy.groups) if world.rank in group)
    ranks = policy.groups[place]
    own = World(world.rank - ranks[0], len(ranks), world.local_rank, is_launched=True, group=groups[place])
    return Roles(policy, NETWORKS[place], own, replace(world, group=late), published)


def _by_version(saved: Mapping[str, Tensor]) -> dict[tuple[int, int], dict[str, Tensor]]:
    """The tensors of each snapshot by step and version, oldest first."""
    found: dict[tuple[int, int], dict[str, Tensor]] = {}
    for key, value in saved.items():
        step, version, name = key.split(".", 2)
        found.setdefault((int(step), int(version)), {})[name] = value
    return dict(sorted(found.items()))
