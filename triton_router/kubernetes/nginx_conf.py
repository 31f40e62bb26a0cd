"""A plain nginx that splits one model's requests between two of its versions, by the same weights and header.

For users without Kubernetes: one Triton serves both versions, and nginx rewrites the model's address to a version's.
The header decides: ``always`` and ``never`` force a version, any other value is a caller that stays with one version
(``split_clients`` hashes it, so a larger share only ever takes callers from stable), none is a request by itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from triton_router.errors import InvalidInputError
from triton_router.kubernetes import names
from triton_router.kubernetes.release import DEFAULT_HEADER, FORCED, REFUSED

_SPLIT = re.compile(r'(split_clients\s+"[^"\n]*"\s+\$canary_by_weight\s*\{)([^{}]*)(\})')
_SHARE = re.compile(r"(?:(?P<percent>\d{1,3})%\s+canary;\s*)?\*\s+(?P<rest>stable|canary);")

_TEMPLATE = """\
# Written by: triton-router manifests canary --mesh nginx --plain
# Run it:       nginx -p DIR -c nginx.conf -e error.log      (DIR holds this file; logs and temporary files go there)
# Change it:    triton-router manifests canary --set-weight N DIR/nginx.conf, then nginx -p DIR -c nginx.conf -s reload
worker_processes auto;
pid nginx.pid;
error_log error.log;
worker_shutdown_timeout 60s;

events {{
    worker_connections 1024;
}}

http {{
    # Beside this file: where a distribution has them they take root.
    client_body_temp_path client_body_temp;
    proxy_temp_path proxy_temp;
    fastcgi_temp_path fastcgi_temp;
    uwsgi_temp_path uwsgi_temp;
    scgi_temp_path scgi_temp;

    # As much as Triton takes; tensors are kept in memory, both ways, and nothing is written to the disk.
    client_max_body_size 64m;
    client_body_buffer_size 64m;
    proxy_max_temp_file_size 0;

    log_format canary '$time_iso8601 $status $request_time $canary_track $canary_version "$request"';
    access_log access.log canary;

    # Who is asking: the header's value, and without it every request is somebody else.
    map $http_{variable} $canary_key {{
        ""      $request_id;
        default $http_{variable};
    }}

    split_clients "{model}/$canary_key" $canary_by_weight {{{share}}}

    map $http_{variable} $canary_track {{
        "{forced}" canary;
        "{refused}"  stable;
        default  $canary_by_weight;
    }}

    map $canary_track $canary_version {{
        canary  {canary};
        default {stable};
    }}

    # nginx 1.27.4 and later: a reload waits this long before it closes a client's idle connection, and tells the client
    # with its next answer. Without this line a client can lose one request, sent while its connection was being closed.
    # keepalive_min_timeout 2s;

    upstream triton {{
        server {server};
        keepalive 64;
    }}

    server {{
        listen {listen};
        proxy_http_version 1.1;
        proxy_set_header Connection "";
        proxy_set_header Host $host;
        # A request is sent once: the router behind repeats what failed.
        proxy_next_upstream off;

{split}
        location /v2/models/ {{
            proxy_pass http://triton;
        }}
        location /v2/health/ {{
            proxy_pass http://triton;
        }}
        location = /v2 {{
            proxy_pass http://triton;
        }}
        # Whoever may load models, or register memory, may run code: not from here.
        location / {{
            return 404;
        }}
        location ~ /trace/setting$ {{
            return 404;
        }}
    }}
}}
"""

_LOCATION = """\
        location = /v2/models/{model}/{action} {{
            rewrite ^ /v2/models/{model}/versions/$canary_version/{action} break;
            proxy_pass http://triton;
            proxy_buffering {buffering};
        }}
"""


@dataclass(frozen=True, slots=True)
class PlainSplit:
    """What nginx is to split.

    Attributes:
        model: Name of the model.
        stable: Version that serves.
        canary: Version that is tried; both have to be loaded.
        weight: Percent of the requests that the canary gets.
        server: Triton's HTTP address, ``host:port``.
        listen: Where nginx listens, ``host:port``.
        header: Name of the header that says who asks, or which version is wanted.

    Raises:
        InvalidInputError: A value is not acceptable.
    """

    model: str
    stable: int
    canary: int
    weight: int
    server: str
    listen: str
    header: str = DEFAULT_HEADER

    def __post_init__(self) -> None:
        names.model(self.model)
        names.percentage("--weight", self.weight)
        names.address("--server", self.server)
        names.address("--listen", self.listen)
        names.header(self.header)
        for track in (self.stable, self.canary):
            names.model_version("a version", str(track))
        if self.stable == self.canary:
            raise InvalidInputError(
                f"stable and canary are both version {self.stable}: there is nothing to try",
                hint="give another --canary-version",
            )


def nginx_conf(split: PlainSplit) -> str:
    """Return the whole nginx.conf."""
    actions = (("infer", "on"), ("generate", "on"), ("generate_stream", "off"))
    return _TEMPLATE.format(
        variable=names.header(split.header).replace("-", "_"),
        model=split.model,
        share=_share(split.weight),
        forced=FORCED,
        refused=REFUSED,
        canary=split.canary,
        stable=split.stable,
        server=split.server,
        listen=split.listen,
        split="".join(_LOCATION.format(model=split.model, action=what, buffering=how) for what, how in actions),
    )


def set_conf_weight(text: str, weight: int, *, source: str) -> tuple[str, int]:
    """Return an nginx.conf with another weight, and the weight that it had.

    Raises:
        InvalidInputError: It is not one that `nginx_conf` wrote, or its split has been changed into something else.
    """
    names.percentage("--set-weight", weight)
    splits = _SPLIT.findall(text)
    share = _SHARE.fullmatch(splits[0][1].strip()) if len(splits) == 1 else None
    if share is None or (share["percent"] and share["rest"] == "canary"):
        raise InvalidInputError(
            f"{source} has no split_clients of $canary_by_weight into canary and stable",
            hint="write it anew with: triton-router manifests canary --mesh nginx --plain",
        )
    before = int(share["percent"]) if share["percent"] else 100 if share["rest"] == "canary" else 0
    return _SPLIT.sub(lambda found: found[1] + _share(weight) + found[3], text), before


def _share(weight: int) -> str:
    # nginx knows no 0%, and 100% would leave one hash of 2^32 to nobody.
    if weight in {0, 100}:
        return f"\n        * {'canary' if weight else 'stable'};\n    "
    return f"\n        {weight}% canary;\n        * stable;\n    "
