"""Reading a rosbag2 database (sqlite3) of any schema version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote as percent_encode

from textdifuse_ros.bags.storage import CDR, StoredTopic, definition_of, qos_of
from textdifuse_ros.errors import shorten

MAGIC = b"SQLite format 3\0"


class SqliteStorage:
    """An open database; see :class:`.Storage`.

    :param path: the file
    :raises sqlite3.Error: the database is damaged or lacks the tables of rosbag2
    """

    def __init__(self, path: Path) -> None:
        _roll_back(path)
        # Immutable: it may be on a medium that cannot be written, and no log is created beside it.
        location = f"file:{percent_encode(str(path.absolute()))}?mode=ro&immutable=1"
        self._database = sqlite3.connect(location, uri=True)
        try:
            self._database.text_factory = lambda text: text.decode(errors="replace")
            self.remarks: list[str] = []
            self.topics = self._topics()
            self._count()
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self._database.close()

    def messages(self, ids: set[int]) -> Iterator[tuple[int, int, bytes]]:
        """Yield id of the topic, log time [ns] and bytes of each message, in the order of their log times.

        :param ids: topics to read
        """
        wanted = ",".join(str(int(number)) for number in sorted(ids))
        query = f"SELECT topic_id, timestamp, data FROM messages WHERE topic_id IN ({wanted}) ORDER BY timestamp, id"
        for number, stamp, data in self._database.execute(query):
            if not isinstance(data, bytes) or not isinstance(stamp, int):
                raise ValueError(f"a message of topic {number} that is no blob with a time")
            yield number, stamp, data

    def _columns(self, table: str) -> set[str]:
        return {row[1] for row in self._database.execute(f"PRAGMA table_info({table})")}

    def _topics(self) -> list[StoredTopic]:
        definitions = {}
        if self._columns("message_definitions"):
            query = "SELECT topic_type, encoding, encoded_message_definition FROM message_definitions ORDER BY id DESC"
            definitions = {
                kind: definition_of(encoding, text) for kind, encoding, text in self._database.execute(query)
            }
        known = self._columns("topics")
        optional = [name if name in known else "''" for name in ("offered_qos_profiles", "type_description_hash")]
        query = f"SELECT id, name, type, serialization_format, {', '.join(optional)} FROM topics ORDER BY id"
        none = definition_of("", "")
        return [
            StoredTopic(
                number, topic, kind, encoding, definitions.get(kind, none), digest or "", qos_of(qos),
                "" if encoding == CDR else shorten(str(encoding), 80) or "no encoding",
            )
            for number, topic, kind, encoding, qos, digest in self._database.execute(query)
        ]  # fmt: skip

    def _count(self) -> None:
        query = "SELECT topic_id, count(*), min(timestamp), max(timestamp) FROM messages GROUP BY topic_id"
        rows = list(self._database.execute(query))
        self.counts: dict[int, int] = {number: count for number, count, _, _ in rows}
        self.times = (min(row[2] for row in rows), max(row[3] for row in rows)) if rows else None
        known = {topic.id for topic in self.topics}
        lost = sum(count for number, count, _, _ in rows if number not in known)
        if lost:
            self.remarks.append(f"{lost} messages belong to no topic")


def _roll_back(path: Path) -> None:
    """Roll back the incomplete transaction of a killed recorder.

    An immutable database is read with incomplete data. Opened normally, SQLite finds the journal and rolls back. If
    that fails (a recorder is active, the disk is read-only), the database is read as it is.
    """
    if any(path.with_name(f"{path.name}-{log}").is_file() for log in ("journal", "wal")):
        with suppress(sqlite3.OperationalError), closing(sqlite3.connect(path, timeout=0)) as database:
            database.execute("SELECT count(*) FROM sqlite_master").fetchone()
