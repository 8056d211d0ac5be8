"""Every command: where it is, and its line of help.

``gemel --help`` and completion read only this table; a command's module is
imported when it is called. A test holds the lines against the commands' own.
"""

from __future__ import annotations

from typing import NamedTuple


class Entry(NamedTuple):
    """A command's module under gemel.cli.commands, its object there, one line of help."""

    module: str
    attribute: str
    help: str


Table = dict[str, Entry]

APPLICATION: Table = {
    "up": Entry("up", "up", "Create and start the application"),
    "down": Entry("down", "down", "Stop and remove the application"),
    "ps": Entry("ps", "ps", "List services: runtime, state, ports"),
    "logs": Entry("logs", "logs", "Show output of services"),
    "exec": Entry("execute", "execute", "Run a command in a running service"),
    "run": Entry("run", "run", "Run an image, or a one-off command of a service"),
    "start": Entry("lifecycle", "start", "Start services"),
    "stop": Entry("lifecycle", "stop", "Stop services"),
    "restart": Entry("lifecycle", "restart", "Restart services"),
    "kill": Entry("lifecycle", "kill", "Send a signal to services (KILL)"),
    "rm": Entry("remove", "rm", "Remove stopped containers"),
    "create": Entry("up", "create", "Create the application without starting it"),
    "scale": Entry("up", "scale", "Change the number of replicas"),
    "update": Entry("up", "update", "Replace services without losing a request"),
    "watch": Entry("watch", "watch", "Carry saved files into running services"),
    "config": Entry("config", "config", "Check the Compose file and show it resolved"),
    "ls": Entry("projects", "ls", "List applications (Compose projects)"),
}
INSIDE: Table = {
    "top": Entry("look", "top", "Show the processes of services"),
    "stats": Entry("stats", "stats", "Show CPU, memory and I/O as it is used"),
    "port": Entry("look", "port", "Show the published address of a port"),
    "inspect": Entry("look", "inspect", "Show everything about an object as JSON"),
    "debug": Entry("debug", "debug", "A shell with tools, or a debugger, in any service"),
    "why": Entry("why", "why", "Say what has happened to a service"),
    "explain": Entry("explain", "explain", "Say which runtime a service has, and why"),
    "compare": Entry("compare", "compare", "Run a service both ways and measure"),
    "dashboard": Entry(
        "dashboard", "dashboard", "Open the dashboard: services, map, calls, logs, terminals"
    ),
    "report": Entry("report", "report", "Crash reports: list them, pack one"),
    "traffic": Entry("traffic", "traffic", "Show the calls between services"),
    "traces": Entry("traces", "traces", "List what was done for requests, across services"),
    "trace": Entry("traces", "trace", "Draw a request's way through the services"),
    "record": Entry("replay", "record", "Keep what a service is asked as a HAR file"),
    "replay": Entry("replay", "replay", "Ask it again, show what is answered differently"),
    "fault": Entry("fault", "fault", "Disturb the way between two services for a while"),
    "metrics": Entry("metrics", "metrics", "Print figures in Prometheus' format"),
    "events": Entry("look", "events", "Follow what happens"),
    "attach": Entry("execute", "attach", "Connect to a running program's terminal"),
    "cp": Entry("copy", "cp", "Copy files from and to an instance"),
    "wait": Entry("lifecycle", "wait", "Wait until services end; print exit codes"),
    "pause": Entry("lifecycle", "pause", "Freeze services"),
    "unpause": Entry("lifecycle", "unpause", "Go on with frozen services"),
    "rename": Entry("remove", "rename", "Give a container another name"),
}
OBJECTS: Table = {
    "build": Entry("build", "build", "Build the images of services"),
    "pull": Entry("images", "pull", "Pull the images of services"),
    "push": Entry("images", "push", "Push the images of services"),
    "publish": Entry("publish", "publish", "Put the Compose file into a registry"),
    "images": Entry("images", "images", "List images in use"),
    "commit": Entry("commit", "commit", "Make an image of a service as it is now"),
    "export": Entry("export", "export", "Write a service's files as a tar archive"),
    "image": Entry("image", "image", "Manage images"),
    "container": Entry("container", "container", "Manage containers and micro VMs one by one"),
    "network": Entry("network", "network", "Manage networks"),
    "volume": Entry("volume", "volume", "Manage volumes"),
    "volumes": Entry("volume", "volumes", "List the application's volumes"),
}
SYSTEM: Table = {
    "doctor": Entry("system", "doctor", "Check this machine, say how to mend it"),
    "info": Entry("system", "info", "Show the engine's state"),
    "version": Entry("system", "version", "Show versions"),
    "kernel": Entry("kernel", "kernel", "Guest kernels of micro VMs"),
    "env": Entry("system", "env", "Print settings that point Docker's tools to gemel"),
    "daemon": Entry("system", "daemon", "Run the engine in the foreground"),
    "system": Entry("system", "system", "Disk usage, clean up, stop the engine"),
    "completion": Entry("completion", "completion", "Print a completion script for a shell"),
}

GROUPS: list[tuple[str, Table]] = [
    ("Application (services of a Compose file)", APPLICATION),
    ("Look inside", INSIDE),
    ("Images, networks, volumes", OBJECTS),
    ("This machine", SYSTEM),
]

ALL: Table = {name: entry for _, table in GROUPS for name, entry in table.items()}

#: Docker Compose's other names of commands; not listed.
ALIASES = {"convert": "config"}

EXAMPLES = """\
  gemel up -d                          bring up the application of ./compose.yaml
  gemel up --runtime payments=microvm  the same, one service as a micro VM
  gemel logs -f web                    follow the output of a service
  gemel exec web sh                    a shell in it
  gemel run --rm -it --runtime microvm busybox sh
  gemel doctor                         what this machine offers and lacks"""
