"""Asks AWS through its own library for Python (boto3). One JSON object a line
comes in, one goes out:

  {"id", "secret"}       whom AWS takes this access key for
  {"file", "profile"}    the same for a profile of a credentials file

Answers: {"arn"}, {"code"} of a refusal, or {"wrong"} where it could not be asked.

Arguments: the service's address, the authority's certificate.
"""

import json
import os
import sys

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

service, authority = sys.argv[1:3]
os.environ["AWS_EC2_METADATA_DISABLED"] = "true"
CONFIG = Config(retries={"total_max_attempts": 1}, read_timeout=20)

# A session reads the descriptions of all services: one for all questions does.
KEYS = boto3.Session()


def session(asked):
    if "profile" in asked:
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = asked["file"]
        return boto3.Session(profile_name=asked["profile"]), {}
    return KEYS, {"aws_access_key_id": asked["id"], "aws_secret_access_key": asked["secret"]}


def answer(asked):
    asking, key = session(asked)
    sts = asking.client("sts", "us-east-1", endpoint_url=service, verify=authority, config=CONFIG, **key)
    try:
        return {"arn": sts.get_caller_identity()["Arn"]}
    except ClientError as refused:
        return {"code": refused.response["Error"]["Code"]}


for line in sys.stdin:
    try:
        told = answer(json.loads(line))
    except Exception as wrong:
        told = {"wrong": repr(wrong)}
    print(json.dumps(told), flush=True)
