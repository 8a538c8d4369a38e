"""A Zenoh client of another language: takes one JSON command a line, answers with one JSON line."""

import base64
import json
import sys
import threading

import zenoh


def octets(text):
    return base64.b64decode(text)


def told(sample):
    return {
        "key": str(sample.key_expr),
        "encoding": str(sample.encoding),
        "bytes": base64.b64encode(sample.payload.to_bytes()).decode(),
    }


def get(session, command):
    more = {}
    if command.get("bytes") is not None:
        more["payload"] = octets(command["bytes"])
    if command.get("encoding") is not None:
        more["encoding"] = zenoh.Encoding(command["encoding"])
    if command.get("all"):
        more["target"] = zenoh.QueryTarget.ALL
        more["consolidation"] = zenoh.ConsolidationMode.NONE
    replies = []
    for reply in session.get(command["selector"], timeout=command.get("timeout", 10.0), **more):
        if reply.ok is not None:
            replies.append({"ok": True, **told(reply.ok)})
        else:
            error = reply.err
            body = base64.b64encode(error.payload.to_bytes()).decode()
            replies.append({"ok": False, "key": "", "encoding": str(error.encoding), "bytes": body})
    return replies


def main():
    config = zenoh.Config.from_json5(sys.argv[1])
    session = zenoh.open(config)
    heard, lock, keep, publishers = [], threading.Lock(), [], {}

    def hear(sample):
        with lock:
            heard.append(told(sample))

    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        command = json.loads(line)
        name = command["do"]
        answer = None
        if name == "get":
            answer = get(session, command)
        elif name == "put":
            session.put(
                command["key"],
                octets(command["bytes"]),
                encoding=zenoh.Encoding(command["encoding"]),
                congestion_control=zenoh.CongestionControl.BLOCK,
            )
        elif name == "publish":
            key = command["key"]
            if key not in publishers:
                publishers[key] = zenoh.ext.declare_advanced_publisher(
                    session,
                    key,
                    cache=zenoh.ext.CacheConfig(max_samples=1000),
                    sample_miss_detection=zenoh.ext.MissDetectionConfig(heartbeat=0.2),
                    publisher_detection=True,
                )
            publishers[key].put(octets(command["bytes"]), encoding=zenoh.Encoding(command["encoding"]))
        elif name == "subscribe":
            keep.append(session.declare_subscriber(command["key"], hear))
        elif name == "answer":
            reply = (command["key"], octets(command["bytes"]))
            keep.append(session.declare_queryable(command["key"], lambda query, reply=reply: query.reply(*reply)))
        elif name == "alive":
            answer = [str(reply.ok.key_expr) for reply in session.liveliness().get(command["key"]) if reply.ok]
        elif name == "heard":
            with lock:
                answer, heard = heard, []
        print(json.dumps(answer), flush=True)
    session.close()


main()
