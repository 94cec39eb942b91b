-- Read by the postgres image at its first start. One database each, so that one service's migrations never meet another's.
CREATE DATABASE prefect;
CREATE DATABASE images;
CREATE DATABASE mlflow;
CREATE DATABASE mlflow_auth;
