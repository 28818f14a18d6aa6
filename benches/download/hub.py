#!/usr/bin/env python3
"""Lays out generated models as static files that nginx serves with the protocol of a Hugging Face hub.

    hub.py FOLDER PORT_HUB PORT_CDN SCHEME

makes FOLDER/{hub,cdn,nginx.conf}; the models are "bench/large" (2 GiB in shards), "bench/single" (the same in
one file) and "bench/small" (2,000 small files, or BENCH_SMALL).
"""

import hashlib
import json
import os
import pathlib
import sys

MIB = 1 << 20
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def generate(path: pathlib.Path, size: int) -> str:
    """A file of random bytes, made once; gives its SHA-256."""
    digest = path.with_name(path.name + ".sha256")
    if digest.exists():
        return digest.read_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for start in range(0, size, 4 * MIB):
            block = os.urandom(min(4 * MIB, size - start))
            sha256.update(block)
            file.write(block)
    digest.write_text(sha256.hexdigest())
    return sha256.hexdigest()


def model(root: pathlib.Path, name: str, files: dict[str, int]) -> list[dict]:
    tree = []
    for path, size in files.items():
        entry = {"type": "file", "path": path, "size": size}
        if size >= MIB:
            oid = generate(root / "cdn" / name / path, size)
            entry |= {"oid": hashlib.sha1(oid.encode()).hexdigest(),
                      "lfs": {"oid": oid, "size": size, "pointerSize": 134}}
        else:
            target = root / "hub" / "small" / name / path
            generate(target, size)
            content = target.read_bytes()
            entry["oid"] = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        tree.append(entry)
    api = root / "hub" / "api" / name
    api.mkdir(parents=True, exist_ok=True)
    siblings = [{"rfilename": entry["path"]} for entry in tree]
    info = {"id": name, "modelId": name, "sha": COMMIT, "private": False, "gated": False, "disabled": False,
            "tags": [], "siblings": siblings}
    (api / "revision.json").write_text(json.dumps(info))
    (api / "tree.json").write_text(json.dumps(tree))
    return tree


def nginx(root: pathlib.Path, hub: int, cdn: int, scheme: str, models: dict[str, list[dict]]) -> str:
    tls = f"ssl_certificate {root}/tls.pem; ssl_certificate_key {root}/tls.key;" if scheme == "https" else ""
    ssl = " ssl" if tls else ""
    resolves = []
    for name, tree in models.items():
        for entry in tree:
            uri = f"/{name}/resolve/{COMMIT}/{entry['path']}"
            head = f'add_header X-Repo-Commit {COMMIT} always; add_header X-Linked-Size {entry["size"]} always;'
            if "lfs" in entry:
                resolves.append(f'location = {uri} {{ {head} add_header X-Linked-Etag \'"{entry["lfs"]["oid"]}"\' always; '
                                f'return 302 {scheme}://localhost:{cdn}/{name}/{entry["path"]}?signature=x; }}')
    # As root, nginx would read the files as somebody else.
    user = "user root;" if os.geteuid() == 0 else ""
    return f"""
{user} daemon on; worker_processes 2; pid {root}/nginx.pid; error_log {root}/error.log; worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
  access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000; default_type application/octet-stream;
  client_body_temp_path {root}/tmp; proxy_temp_path {root}/tmp; fastcgi_temp_path {root}/tmp;
  uwsgi_temp_path {root}/tmp; scgi_temp_path {root}/tmp; server_names_hash_bucket_size 128;
  {tls}
  server {{
    listen 127.0.0.1:{hub}{ssl}; root {root}/hub;
    {' '.join(resolves)}
    location ~ ^/api/models/(?<m>[^/]+/[^/]+)/revision/ {{ types {{}} default_type application/json; rewrite ^ /api/$m/revision.json break; }}
    location ~ ^/api/models/(?<m>[^/]+/[^/]+)/tree/ {{ types {{}} default_type application/json; rewrite ^ /api/$m/tree.json break; }}
    location ~ ^/api/models/(?<m>[^/]+/[^/]+)$ {{ types {{}} default_type application/json; rewrite ^ /api/$m/revision.json break; }}
    location ~ ^/(?<m>[^/]+/[^/]+)/resolve/{COMMIT}/(?<f>.+)$ {{
      add_header X-Repo-Commit {COMMIT} always; rewrite ^ /small/$m/$f break; }}
  }}
  server {{ listen 127.0.0.1:{cdn}{ssl}; root {root}/cdn; }}
}}
"""


def main() -> None:
    root, hub, cdn, scheme = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    total = int(os.environ.get("BENCH_MIB", "2048"))
    small = int(os.environ.get("BENCH_SMALL", "2000"))
    shards = {f"model-{index:05}-of-00008.safetensors": total * MIB // 8 for index in range(1, 9)}
    config = {"config.json": 700, "tokenizer.json": 300_000, "README.md": 5000}
    models = {
        "bench/large": model(root, "bench/large", shards | config),
        "bench/single": model(root, "bench/single", {"model.safetensors": total * MIB} | config),
        "bench/small": model(root, "bench/small", {f"part-{index:04}.json": 2000 for index in range(small)}),
    }
    (root / "tmp").mkdir(exist_ok=True)
    (root / "nginx.conf").write_text(nginx(root, hub, cdn, scheme, models))


if __name__ == "__main__":
    main()
