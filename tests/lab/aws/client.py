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


def session(asked):
    if "profile" in asked:
        os.environ["AWS_SHARED_CREDENTIALS_FILE"] = asked["file"]
        return boto3.Session(profile_name=asked["profile"])
    return boto3.Session(aws_access_key_id=asked["id"], aws_secret_access_key=asked["secret"])


def answer(asked):
    sts = session(asked).client("sts", "us-east-1", endpoint_url=service, verify=authority, config=CONFIG)
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
