"""Make the bucket for MLflow's artifacts if it is not there: python make_bucket.py NAME."""

from __future__ import annotations

import os
import sys

import boto3


def main(name: str) -> None:
    """Key pair and region are read by boto3 itself, from the AWS_* variables."""
    s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    if name not in {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}:
        s3.create_bucket(Bucket=name)


if __name__ == "__main__":
    main(sys.argv[1])
