"""Django's own SessionBase over the rows of django-dynamodb-sessions 0.7.

Release 0.6 needs boto2, which does not run on current versions of Python; 0.7 was never released. Encoding, signing and login are
Django's own. The calls to DynamoDB below are those of 0.7. The class must be named SessionStore: the name is part of the salt of
the signatures.
"""

import time

import boto3
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase


class SessionStore(SessionBase):
    @property
    def table(self):
        return boto3.resource("dynamodb", endpoint_url=settings.DYNAMODB_ENDPOINT).Table("sessions")

    def item(self, key):
        return self.table.get_item(Key={"session_key": key}, ConsistentRead=True).get("Item", {})

    def load(self):
        item = self.item(self.session_key)
        if "data" not in item:
            self._session_key = None
            return {}
        return self.decode(item["data"])

    def exists(self, session_key):
        return bool(self.item(session_key))

    def create(self):
        while True:
            self._session_key = self._get_new_session_key()
            try:
                self.save(must_create=True)
            except CreateError:
                continue
            self.modified = True
            return

    def save(self, must_create=False):
        if self.session_key is None:
            return self.create()
        if must_create and self.exists(self.session_key):
            raise CreateError
        assignments, values = ["#data = :data"], {":data": self.encode(self._get_session(no_load=must_create))}
        if must_create:
            assignments.append("created = :created")
            values[":created"] = int(time.time())
        self.table.update_item(
            Key={"session_key": self.session_key},
            UpdateExpression="SET " + ", ".join(assignments),
            ExpressionAttributeNames={"#data": "data"},
            ExpressionAttributeValues=values,
        )

    def delete(self, session_key=None):
        key = session_key or self.session_key
        if key is not None:
            self.table.delete_item(Key={"session_key": key})

    @classmethod
    def clear_expired(cls):
        pass
