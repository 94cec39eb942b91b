"""Creation of the buckets for MLflow's artifacts and for the images: python make_bucket.py NAME..."""

from __future__ import annotations

import os
import sys

import boto3


def main(names: list[str]) -> None:
    """Create missing buckets; boto3 reads key pair and region from the AWS_* variables."""
    s3 = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"])
    existing = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in names:
        if name not in existing:
            s3.create_bucket(Bucket=name)


if __name__ == "__main__":
    main(sys.argv[1:])
