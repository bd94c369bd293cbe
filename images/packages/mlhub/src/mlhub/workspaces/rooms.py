"""What can be done with workspaces, and who may.

Whoever changes one is alone with it among all replicas, and looks at their own role only then: two
owners who remove each other at once leave one of them.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from mlhub import audit
from mlhub.execution.cluster import ClusterError
from mlhub.execution.identity import Caller
from mlhub.execution.problems import Problem
from mlhub.slugs import is_slug, workspace_slug
from mlhub.workspaces import records
from mlhub.workspaces.claims import Claims, ClaimTakenError
from mlhub.workspaces.directory import Directory, Group, Person, TakenError
from mlhub.workspaces.hub import HubMembers
from mlhub.workspaces.mounts import ROLES, may_write
from mlhub.workspaces.records import DELETED, MAKING, TOP, Record, now, roles_in
from mlhub.workspaces.settings import Settings
from mlhub.workspaces.store import Shared, Store

log = logging.getLogger(__name__)


class Rooms:
    """The workspaces of one platform."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: Store,
        directory: Directory,
        claims: Claims,
        hub: HubMembers,
    ):
        self.settings, self.store, self.directory = settings, store, directory
        self.claims, self.hub = claims, hub
        self.grace = timedelta(days=settings.limits.grace_days)

    # To see

    async def mine(self, caller: Caller, *, deleted: bool = False) -> list[tuple[Record, str]]:
        """The caller's workspaces with their roles; with `deleted` those they can restore."""
        roles = await self._roles(caller)
        found = []
        for name, role in sorted(roles.items()):
            if name.endswith(DELETED) != deleted or (deleted and role != "owner"):
                continue
            if is_slug(name.removesuffix(DELETED)) and (
                group := await self.directory.group(TOP, name)
            ):
                found.append((Record(group), role))
        return found

    async def seen(self, caller: Caller, slug: str) -> tuple[Record, str]:
        """A workspace and the caller's role in it, empty for an administrator without one.

        Raises Problem (404), the same for one that is not there and one that is not theirs.
        """
        return await self._standing(caller, slug, slug)

    async def members(self, record: Record) -> list[tuple[Person, str]]:
        """Everybody with their strongest role, owners first."""
        found: dict[str, tuple[Person, str]] = {}
        groups = await self._role_groups(record.group)
        for role in ROLES:
            for person in await self.directory.members(groups[role]):
                found.setdefault(person.id, (person, role))
        return sorted(found.values(), key=lambda each: (ROLES.index(each[1]), each[0].name))

    # To make

    async def create(
        self, caller: Caller, name: str, *, description: str, owner: str | None, size: int | None
    ) -> Record:
        person = await (self._person(owner) if owner else self._oneself(caller))
        if person.name != caller.name and not caller.admin:
            raise Problem(
                403, "owner", "A workspace begins with you as its owner; add others afterwards."
            )
        await self._is_of_the_hub(person)
        size = self._size(size)
        slug = workspace_slug(name)
        async with self.store.alone(f"workspace:{slug}", f"person:{person.name}"):
            top = await self._top()
            await self._is_free(caller, slug)
            if not caller.admin:
                await self._has_room(top, person)
            attributes = {
                records.NAME: name,
                records.DESCRIPTION: description,
                records.SIZE: f"{size}Gi",
                records.CREATOR: person.name,
                records.CREATED: now().isoformat(),
            }
            record = await self._made(top, slug, person, attributes, size)
            await self.hub.tell(person.name, slug, "owner")
        audit.note("workspace.create", caller.name, "done", what=slug, owner=person.name, name=name)
        return record

    async def _made(
        self, top: Group, slug: str, owner: Person, attributes: dict[str, str], size: int
    ) -> Record:
        """Whole, or not there: it gets its name when all else is done."""
        group = await self.directory.group(TOP, slug + MAKING)
        if group is None:
            group = await self.directory.make(top, slug + MAKING, attributes)
        groups = await self._role_groups(group)
        for role_group in groups.values():
            for person in await self.directory.members(role_group):
                await self.directory.leave(person, role_group)
        try:
            await self.claims.ensure(slug, group.id, size)
        except ClaimTakenError:
            await self.directory.remove(group)
            raise Problem(
                409,
                "volume",
                f"A volume of an earlier workspace {slug} is still there. Choose another name, or "
                "try again in a minute where it was deleted just now.",
            ) from None
        except ClusterError as error:
            raise self._no_volume(error) from error
        await self.directory.join(owner, groups["owner"])
        try:
            await self.directory.rename(group, slug, attributes)
        except TakenError:
            raise _taken(slug) from None
        return Record(Group(group.id, slug, attributes))

    async def delete(self, caller: Caller, slug: str) -> Record:
        """Hide it from everybody, for the time of the grace."""
        async with self.store.alone(f"workspace:{slug}"):
            record, role = await self._standing(caller, slug, slug)
            self._must_own(caller, role, "delete it")
            if not record.creator:
                raise Problem(
                    409,
                    "stack-file",
                    f"The workspace {slug} is of the stack file (mlhub:workspaces), which the "
                    "platform's engineers keep; ask them to take it out there.",
                )
            members = await self.members(record)
            attributes = {**record.group.attributes, records.DELETED_AT: now().isoformat()}
            await self.directory.rename(record.group, slug + DELETED, attributes)
            await self._tell_all(slug, [(person, None) for person, _ in members])
        audit.note("workspace.delete", caller.name, "done", what=slug)
        return Record(Group(record.group.id, slug + DELETED, attributes))

    async def restore(self, caller: Caller, slug: str) -> Record:
        async with self.store.alone(f"workspace:{slug}"):
            record, role = await self._standing(caller, slug, slug + DELETED)
            self._must_own(caller, role, "restore it")
            attributes = {**record.group.attributes}
            attributes.pop(records.DELETED_AT, None)
            try:
                await self.directory.rename(record.group, slug, attributes)
            except TakenError:
                raise _taken(slug) from None
            restored = Record(Group(record.group.id, slug, attributes))
            await self._tell_all(slug, [*await self.members(restored)])
        audit.note("workspace.restore", caller.name, "done", what=slug)
        return restored

    # Members

    async def put_member(self, caller: Caller, slug: str, who: str, role: str) -> Person:
        """Add somebody, or change their role."""
        async with self.store.alone(f"workspace:{slug}"):
            record, own = await self._standing(caller, slug, slug)
            self._must_own(caller, own, "change its members")
            person = await self._person(who)
            await self._is_of_the_hub(person)
            groups = await self._role_groups(record.group)
            if role != "owner":
                await self._is_not_the_last(groups["owner"], person, f"{role} of it")
            # First in, then out: killed in between they have the stronger role, never none.
            await self.directory.join(person, groups[role])
            for other in ROLES:
                if other != role:
                    await self.directory.leave(person, groups[other])
            await self.hub.tell(person.name, slug, role)
        audit.note("workspace.member", caller.name, "set", what=slug, member=person.name, role=role)
        return person

    async def remove_member(self, caller: Caller, slug: str, who: str) -> None:
        """Owners remove anybody, and everybody themselves."""
        async with self.store.alone(f"workspace:{slug}"):
            record, own = await self._standing(caller, slug, slug)
            person = await self._person(who)
            if person.name != caller.name:
                self._must_own(caller, own, "remove others")
            if slug not in roles_in(await self.directory.paths(person)):
                raise Problem(404, "member", f"{person.name} is no member of {slug}.")
            groups = await self._role_groups(record.group)
            await self._is_not_the_last(groups["owner"], person, "removed")
            for group in groups.values():
                await self.directory.leave(person, group)
            await self.hub.tell(person.name, slug, None)
        audit.note("workspace.member", caller.name, "removed", what=slug, member=person.name)

    # What is shared

    async def share(
        self, caller: Caller, slug: str, type: str, path: str, by: str | None
    ) -> Shared:
        record, role = await self._standing(caller, slug, slug)
        self._must_write(caller, role)
        if type == "notebook" and not path.endswith(".ipynb"):
            raise Problem(422, "invalid", "The path of a notebook ends in .ipynb.")
        sharer = await self._person(by) if by else None
        if sharer and sharer.name != caller.name and not caller.admin:
            raise Problem(403, "shared-by", "You share in your own name only.")
        name = sharer.name if sharer else caller.name
        made = await self.store.db(self.store.share, record.group.id, type, path, name)
        audit.note("workspace.share", caller.name, "done", what=slug, path=path)
        return made

    async def shared(self, caller: Caller, slug: str) -> list[Shared]:
        record, _ = await self._standing(caller, slug, slug)
        return await self.store.db(self.store.shared, record.group.id)

    async def unshare(self, caller: Caller, slug: str, id: str) -> None:
        record, role = await self._standing(caller, slug, slug)
        self._must_write(caller, role)
        if not await self.store.db(self.store.unshare, record.group.id, id):
            raise Problem(404, "resource", "Nothing of that id is shared in this workspace.")
        audit.note("workspace.unshare", caller.name, "done", what=slug, resource=id)

    # The end

    async def sweep(self) -> None:
        """End what was deleted long enough ago; the volume stays, released, with its data.

        One that fails is tried again with the next round, and keeps no other from its end.
        """
        for group in await self.directory.children(await self._top()):
            try:
                await self._end(group)
            except (Problem, ClusterError) as error:
                log.warning("%s has not ended yet: %s", group.name, error)
            except Exception:
                log.exception("%s has not ended yet", group.name)

    async def _end(self, group: Group) -> None:
        record = Record(group)
        if not self._is_over(record):
            return
        async with self.store.alone(f"workspace:{record.slug}"):
            again = await self.directory.group(TOP, group.name)
            # Its owner may have restored it meanwhile, and deleted it once more.
            if again is None or again.id != group.id or not self._is_over(Record(again)):
                return
            if not await self.claims.remove(record.slug, group.id):
                log.warning("The claim of %s is not the service's, and stays.", record.slug)
            await self.store.db(self.store.end, group.id, record.slug)
            await self.directory.remove(group)
        audit.note("workspace.end", "mlhub", "done", what=record.slug)

    def _is_over(self, record: Record) -> bool:
        """Whether people made it, deleted it, and can restore it no more."""
        until = record.restorable_until(self.grace)
        return until is not None and until <= now() and bool(record.creator)

    # What everything above asks

    async def _top(self) -> Group:
        top = await self.directory.group(TOP)
        if top is None:
            raise Problem(
                503, "setup", "Keycloak has no group /workspaces; an administrator runs `up` again."
            )
        return top

    async def _roles(self, caller: Caller) -> dict[str, str]:
        person = await self.directory.named(caller.name)
        return roles_in(await self.directory.paths(person)) if person else {}

    async def _standing(self, caller: Caller, slug: str, name: str) -> tuple[Record, str]:
        """The group of that name, and the caller's role below it."""
        role = (await self._roles(caller)).get(name, "") if is_slug(slug) else ""
        if is_slug(slug) and (role or caller.admin):
            group = await self.directory.group(TOP, name)
            if group is not None:
                return Record(group), role
        raise Problem(
            404,
            "workspace",
            "There is no such workspace of yours; list those that are. Its id is its slug, which "
            "may differ from its name.",
        )

    async def _role_groups(self, group: Group) -> dict[str, Group]:
        """By role; one that is missing is made."""
        found = {child.name: child for child in await self.directory.children(group)}
        for role in ROLES:
            if role not in found:
                found[role] = await self.directory.make(group, role, {})
        return found

    async def _person(self, who: str) -> Person:
        person = await self.directory.person(who)
        if person is None:
            raise Problem(
                404,
                "person",
                "Keycloak knows nobody by that user name or verified e-mail address.",
            )
        return person

    async def _oneself(self, caller: Caller) -> Person:
        person = await self.directory.named(caller.name)
        if person is None:
            raise Problem(404, "person", f"Keycloak knows nobody by the user name {caller.name}.")
        return person

    async def _is_of_the_hub(self, person: Person) -> None:
        if not person.enabled or not self.directory.may_log_in(await self.directory.paths(person)):
            raise Problem(
                403,
                "no-access",
                f"{person.name} may not use this hub, so no workspace of it either. Ask an "
                "administrator to add the account to one of "
                f"{', '.join(self.settings.keycloak.access_groups)}.",
            )

    async def _is_not_the_last(self, owners: Group, person: Person, becomes: str) -> None:
        there = [each for each in await self.directory.members(owners) if each.enabled]
        if [each.id for each in there] == [person.id]:
            raise Problem(
                409,
                "last-owner",
                f"{person.name} is the last owner, who cannot be {becomes}. Make somebody else an "
                "owner first.",
            )

    async def _is_free(self, caller: Caller, slug: str) -> None:
        if await self.directory.group(TOP, slug):
            raise _taken(slug)
        if gone := await self.directory.group(TOP, slug + DELETED):
            until = Record(gone).restorable_until(self.grace)
            raise Problem(
                409,
                "deleted",
                f"A workspace of that name was deleted and can be restored by its owners until "
                f"{until:%Y-%m-%d %H:%M} UTC. Choose another name.",
            )
        # Its experiments and models in MLflow stay, and would be whoever's makes it again.
        if not caller.admin and (end := await self.store.db(self.store.ended, slug)):
            raise Problem(
                409,
                "ended",
                f"A workspace of that name ended on {datetime.fromtimestamp(end, UTC):%Y-%m-%d}, "
                "and what it has in MLflow is kept. Choose another name; for the same people, an "
                "administrator can make it again.",
            )

    async def _has_room(self, top: Group, person: Person) -> None:
        """Those that are deleted count until they have ended, for their volumes are there."""
        made = [Record(group) for group in await self.directory.children(top)]
        mine = [each for each in made if each.creator == person.name and not each.making]
        most = self.settings.limits.per_person
        if len(mine) < most:
            return
        ends = sorted(filter(None, (each.restorable_until(self.grace) for each in mine)))
        # Whoever has more than the limit waits for more than one.
        free = ends[len(mine) - most] if len(ends) > len(mine) - most else None
        if free and free.year < datetime.max.year:
            way = f"The next one is free on {free:%Y-%m-%d %H:%M} UTC; until then"
        else:
            way = "Delete one, or"
        names = ", ".join(sorted(each.slug for each in mine))
        raise Problem(
            409,
            "limit",
            f"You have made {len(mine)} of {most} workspaces ({names}); a deleted one counts for "
            f"{self.settings.limits.grace_days:g} days. {way} ask an administrator to make this "
            "one for you.",
        )

    def _size(self, asked: int | None) -> int:
        largest = self.settings.claims.largest_gib
        size = self.settings.claims.size_gib if asked is None else asked
        if size > largest:
            raise Problem(422, "invalid", f"size_gib: at most {largest} GiB is possible here.")
        return size

    def _no_volume(self, error: ClusterError) -> Problem:
        if error.status == 403:
            return Problem(
                409,
                "storage",
                "The platform has no room for another volume. Ask for a smaller one, or tell your "
                f"administrator. Kubernetes says: {error.message}",
            )
        return Problem(
            503,
            "kubernetes",
            "Kubernetes, which makes the volume, does not answer. Try again in a minute.",
            headers={"Retry-After": "30"},
        )

    def _must_own(self, caller: Caller, role: str, what: str) -> None:
        if role != "owner" and not caller.admin:
            raise Problem(
                403, "role", f"Only owners of this workspace may {what}; you are its {role}."
            )

    def _must_write(self, caller: Caller, role: str) -> None:
        if not may_write(role) and not caller.admin:
            raise Problem(403, "role", "Only owners and editors may share; you are a viewer.")

    async def _tell_all(self, slug: str, members: list[tuple[Person, str | None]]) -> None:
        await asyncio.gather(*(self.hub.tell(person.name, slug, role) for person, role in members))


def _taken(slug: str) -> Problem:
    return Problem(
        409, "taken", f"There is a workspace {slug} already. Choose another name for yours."
    )
