"""Which images are built or pulled before the rest of a plan can be made."""

from __future__ import annotations

from gemel.compose.builds import built_before
from gemel.compose.observed import Observed
from gemel.compose.project import Project, Service
from gemel.compose.steps import Draft, Kind, Plan
from gemel.compose.upoptions import ALWAYS, NEVER, UpOptions, targets


def plan_images(project: Project, observed: Observed, options: UpOptions) -> Plan:
    """Images to build or pull before ``plan_up`` can tell what differs."""
    draft = Draft()
    built: dict[str, int] = {}
    pulled: set[str] = set()
    names = targets(project, options)
    for name in [*names, *_contexts(project, names)]:
        _image(project, project.service(name), observed, options, draft, built, pulled)
    for name in names:
        for image in further_images(project.service(name)):
            _further(project, name, image, observed, options, draft, built, pulled)
    return draft.plan()


def image_volumes(service: Service) -> list[tuple[str, str]]:
    """Images that a service mounts, with where."""
    return [
        (volume.get("source") or "", volume["target"])
        for volume in service.volumes
        if volume.get("type") == "image"
    ]


def further_images(service: Service) -> list[str]:
    """Images that a service needs beside its own: of volumes and of pre_start's steps."""
    steps = service.config.get("pre_start") or ()
    found = [image for image, _ in image_volumes(service)]
    found += [step["image"] for step in steps if step.get("image")]
    return [image for image in dict.fromkeys(found) if image != service.image]


def _further(
    project: Project,
    name: str,
    image: str,
    observed: Observed,
    options: UpOptions,
    draft: Draft,
    built: dict[str, int],
    pulled: set[str],
) -> None:
    """Such an image: built, if a service's build makes it, else pulled if it is missing."""
    maker = next((s for s in project.services.values() if project.image_of(s) == image), None)
    if maker is not None and maker.build is not None:
        return _image(project, maker, observed, options, draft, built, pulled)
    if image in pulled or image in observed.images or options.pull == NEVER:
        return
    pulled.add(image)
    draft.add(Kind.PULL, image, "the image is not there", set(), service=name)


def _contexts(project: Project, names: list[str]) -> list[str]:
    """Services that are only built because another's build uses their image."""
    found: dict[str, None] = {}
    for name in names:
        for other in built_before(project.service(name)):
            if other not in names:
                found[other] = None
    return list(found)


def _image(
    project: Project,
    service: Service,
    observed: Observed,
    options: UpOptions,
    draft: Draft,
    built: dict[str, int],
    pulled: set[str],
) -> None:
    image = project.image_of(service)
    there = image in observed.images
    policy = options.pull or service.pull_policy
    if service.provider is not None or service.name in built:
        return
    if service.build is not None and options.build != NEVER and policy not in (ALWAYS, NEVER):
        if not there or options.build == ALWAYS or policy == "build":
            after = set()
            for other in built_before(service):
                _image(project, project.service(other), observed, options, draft, built, pulled)
                if other in built:
                    after.add(built[other])
            reason = "--build" if options.build == ALWAYS else "the image is not there"
            reason = "pull_policy: build" if policy == "build" else reason
            built[service.name] = draft.add(Kind.BUILD, image, reason, after, service=service.name)
        return
    if image in pulled or policy == NEVER or (there and policy != ALWAYS):
        return
    pulled.add(image)
    reason = "pull policy always" if there else "the image is not there"
    draft.add(Kind.PULL, image, reason, set(), service=service.name)
