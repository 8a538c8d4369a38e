"""Compares two MCAP files message by message, and prints how many messages they have."""

import sys
from itertools import zip_longest

from mcap.reader import make_reader


def messages(path):
    with open(path, "rb") as file:
        for schema, channel, message in make_reader(file, validate_crcs=True).iter_messages():
            yield (
                schema and (schema.name, schema.encoding, schema.data),
                (channel.topic, channel.message_encoding, channel.metadata),
                (message.sequence, message.log_time, message.publish_time, message.data),
            )


count = 0
for original, found in zip_longest(messages(sys.argv[1]), messages(sys.argv[2])):
    if original != found:
        sys.exit(f"message {count} differs")
    count += 1
print(count)
