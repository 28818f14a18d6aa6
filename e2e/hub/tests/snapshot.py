"""Downloads one snapshot with the real client; prints the name of the exception that it raises, or `ok`."""

import sys

from huggingface_hub import snapshot_download

repo, revision, token, folder = sys.argv[1:]
try:
    snapshot_download(repo, revision=revision, token=token or False, local_dir=folder)
except Exception as error:
    print(error, file=sys.stderr)
    print(type(error).__name__)
else:
    print("ok")
