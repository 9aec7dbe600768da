"""Trajectories shared out over the devices of this process: none asks for anything of another within a chunk."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from marsjax.core.errors import InputError

AXIS = "trajectories"
"""Of the mesh."""


@dataclasses.dataclass(frozen=True)
class Devices:
    """The devices that trajectories are shared out over; hashable, a static argument of compiled calls.

    Of B trajectories, B a multiple of the devices, each device has as many, one after the other.

    Examples:
      >>> from marsjax.sim.devices import Devices
      >>> Devices.of(1).count
      1
    """

    mesh: Mesh | None
    """None: one device, that of the arguments or else JAX's default one."""

    @classmethod
    def of(cls, count: int) -> "Devices":
        """So many of the devices of this process, 0 for all; InputError where there are not so many."""
        found = jax.local_devices()
        if isinstance(count, bool) or not 0 <= count <= len(found):
            raise InputError(f"devices: expected 0 (all) to {len(found)}, got {count}")
        count = count or len(found)
        return cls(Mesh(np.array(found[:count]), (AXIS,)) if count > 1 else None)

    @property
    def count(self) -> int:
        """How many."""
        return 1 if self.mesh is None else self.mesh.size

    @property
    def apart(self) -> Sharding | None:
        """Of arrays [B, ...]; None on one device, which need not be named."""
        return None if self.mesh is None else NamedSharding(self.mesh, PartitionSpec(AXIS))

    def on_each(self, tree: Any) -> Any:
        """The arrays as they are on one device, and a copy of them on each of several."""
        return tree if self.mesh is None else jax.device_put(tree, NamedSharding(self.mesh, PartitionSpec()))

    def on_its_own(self, function: Callable[..., Any], shared: Sequence[bool]) -> Callable[..., Any]:
        """`function` called by each device with its own rows of the arguments, whose rows the results are.

        `shared` says which of the arguments, pytrees, all devices see as they are.
        """
        if self.mesh is None:
            return function
        specs = tuple(PartitionSpec() if is_shared else PartitionSpec(AXIS) for is_shared in shared)
        # What a device computes depends on its own rows alone: there is nothing that could differ between copies.
        return jax.shard_map(function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(AXIS), check_vma=False)
