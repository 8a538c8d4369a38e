"""Puts the files of a folder with obstore, and tells what that cost without the interpreter's start."""

import asyncio
import json
import os
import sys
import time
from pathlib import Path

import obstore
from obstore.store import S3Store


def main() -> None:
    folder, endpoint, bucket, at_once = sys.argv[1:]
    store = S3Store(
        bucket,
        prefix="obstore",
        endpoint=endpoint,
        region="us-east-1",
        access_key_id=os.environ["AWS_ACCESS_KEY_ID"],
        secret_access_key=os.environ["AWS_SECRET_ACCESS_KEY"],
        virtual_hosted_style_request=False,
        checksum_algorithm="SHA256",
        client_options={"allow_http": True},
    )

    async def put_all() -> None:
        gate = asyncio.Semaphore(int(at_once))

        async def put(path: Path) -> None:
            async with gate:
                await obstore.put_async(store, path.name, path)

        await asyncio.gather(*map(put, Path(folder).iterdir()))

    wall, cpu = time.perf_counter(), time.process_time()
    asyncio.run(put_all())
    print(json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}), flush=True)
    # It may abort when the interpreter ends, after everything was stored.
    os._exit(0)


main()
