"""Uses the API at the given URL as an app with boto would, and fails if a response differs from DynamoDB's."""

import sys

import botocore.config
import botocore.session
from botocore.exceptions import ClientError

session = botocore.session.Session()
session.set_credentials("local", "local")
client = session.create_client(
    "dynamodb",
    region_name="us-east-1",
    endpoint_url=sys.argv[1],
    # The mode that verifies x-amz-crc32.
    config=botocore.config.Config(retries={"mode": "legacy", "max_attempts": 0}),
)


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        return error.response
    raise AssertionError(f"not refused: {arguments}")


client.create_table(
    TableName="rows",
    KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
    BillingMode="PAY_PER_REQUEST",
)
client.update_time_to_live(
    TableName="rows", TimeToLiveSpecification={"Enabled": True, "AttributeName": "exp"}
)
ttl = client.describe_time_to_live(TableName="rows")["TimeToLiveDescription"]
assert ttl["AttributeName"] == "exp", ttl

row = {"id": {"S": "a"}, "n": {"N": "1.5"}, "b": {"B": b"\x00\xff"}}
client.put_item(TableName="rows", Item=row)
assert client.get_item(TableName="rows", Key={"id": {"S": "a"}})["Item"] == row
assert "Item" not in client.get_item(TableName="rows", Key={"id": {"S": "none"}})

response = refused(
    "ConditionalCheckFailedException",
    client.put_item,
    TableName="rows",
    Item=row,
    ConditionExpression="attribute_not_exists(id)",
    ReturnValuesOnConditionCheckFailure="ALL_OLD",
)
assert response["Item"] == row, response
assert response["Error"]["Message"] == "The conditional request failed", response
refused("ResourceNotFoundException", client.get_item, TableName="absent", Key={"id": {"S": "a"}})
refused("ValidationException", client.get_item, TableName="rows", Key={"other": {"S": "a"}})

batch = [{"PutRequest": {"Item": {"id": {"S": f"b{i}"}}}} for i in range(3)]
assert client.batch_write_item(RequestItems={"rows": batch})["UnprocessedItems"] == {}
client.transact_write_items(
    TransactItems=[
        {"Delete": {"TableName": "rows", "Key": {"id": {"S": "b0"}}}},
        {"Put": {"TableName": "rows", "Item": {"id": {"S": "c"}}}},
    ]
)
found = client.query(
    TableName="rows",
    KeyConditionExpression="id = :id",
    ExpressionAttributeValues={":id": {"S": "c"}},
)
assert found["Count"] == 1, found
pages = client.get_paginator("scan").paginate(TableName="rows", PaginationConfig={"PageSize": 2})
assert sorted(item["id"]["S"] for page in pages for item in page["Items"]) == ["a", "b1", "b2", "c"]
