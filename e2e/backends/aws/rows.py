"""What the vendor's own client sees of a server: the same rows against ours and against moto.

A row is a function of a `Server` and returns what it saw. Where moto is right the two must see the same; where it is not, the row says so
in `MOTO_IS_WRONG` with what AWS does, which ours must do, and moto must still be wrong: else the entry is a lie.
"""

import boto3
import botocore.config
import botocore.exceptions

TOKEN = "11111111-1111-4111-8111-{:012d}"
ROLE = "arn:aws:iam::123456789012:role/reader"
CONFIG = botocore.config.Config(retries={"total_max_attempts": 1}, parameter_validation=False)


class Server:
    def __init__(self, url, key):
        self.url = url
        self.secrets, self.parameters, self.sts = (self.client(name, key) for name in ("secretsmanager", "ssm", "sts"))

    def client(self, service, key):
        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="eu-west-1",
            aws_access_key_id=key["access_key"],
            aws_secret_access_key=key["secret_key"],
            aws_session_token=key.get("session_token"),
            config=CONFIG,
        )


def tried(call, **arguments):
    """The answer without what is different each time, or the name of the error."""
    try:
        return plain(call(**arguments))
    except botocore.exceptions.ClientError as error:
        return error.response["Error"]["Code"]


def plain(answer):
    if isinstance(answer, dict):
        gone = ("ResponseMetadata", "ARN", "LastModifiedUser", "LastAccessedDate", "NextToken", "Selector")
        return {key: plain(value) for key, value in answer.items() if key not in gone and value not in ([], {}, "")}
    if isinstance(answer, list):
        return [plain(value) for value in answer]
    return "a time" if hasattr(answer, "isoformat") else answer


def picked(answer, *members):
    return answer if isinstance(answer, str) else {member: answer.get(member) for member in members}


def make(server, name, text="one", number=1, **more):
    return server.secrets.create_secret(Name=name, SecretString=text, ClientRequestToken=TOKEN.format(number), **more)


# Secrets Manager


def a_text_is_read_as_it_was_written(server):
    make(server, "text/one", '{"user":"ü","n":1.10}')
    return tried(server.secrets.get_secret_value, SecretId="text/one")


def bytes_are_read_as_they_were_written(server):
    server.secrets.create_secret(Name="bytes/one", SecretBinary=bytes(range(256)), ClientRequestToken=TOKEN.format(1))
    return tried(server.secrets.get_secret_value, SecretId="bytes/one")


def a_second_creation_is_refused(server):
    make(server, "twice/one")
    again = tried(server.secrets.create_secret, Name="twice/one", SecretString="one", ClientRequestToken=TOKEN.format(2))
    return again, tried(server.secrets.create_secret, Name="twice/one", SecretString="other", ClientRequestToken=TOKEN.format(1))


def the_same_creation_again_is_no_error(server):
    make(server, "same/one")
    return picked(tried(server.secrets.create_secret, Name="same/one", SecretString="one", ClientRequestToken=TOKEN.format(1)), "VersionId")


def a_new_version_makes_the_old_one_the_previous(server):
    make(server, "versions/one")
    put = tried(server.secrets.put_secret_value, SecretId="versions/one", SecretString="two", ClientRequestToken=TOKEN.format(2))
    read = server.secrets.get_secret_value
    return (
        put,
        tried(read, SecretId="versions/one"),
        tried(read, SecretId="versions/one", VersionStage="AWSPREVIOUS"),
        tried(read, SecretId="versions/one", VersionId=TOKEN.format(1)),
    )


def a_token_writes_once(server):
    make(server, "token/one")
    put = server.secrets.put_secret_value
    write = {"SecretId": "token/one", "ClientRequestToken": TOKEN.format(2)}
    seen = [tried(put, SecretString=text, **write) for text in ("two", "two", "three")]
    return seen, tried(server.secrets.get_secret_value, SecretId="token/one")


def what_is_not_there_is_not_found(server):
    make(server, "missing/one")
    read = server.secrets.get_secret_value
    return (
        tried(read, SecretId="missing/none"),
        tried(read, SecretId="missing/one", VersionStage="NOSTAGE"),
        tried(read, SecretId="missing/one", VersionId=TOKEN.format(9)),
        tried(server.secrets.describe_secret, SecretId="missing/none"),
        tried(server.secrets.put_secret_value, SecretId="missing/none", SecretString="x"),
        tried(server.secrets.delete_secret, SecretId="missing/none"),
    )


def what_is_marked_for_deletion_is_refused_until_it_is_restored(server):
    make(server, "marked/one")
    read = server.secrets.get_secret_value
    marked = picked(tried(server.secrets.delete_secret, SecretId="marked/one", RecoveryWindowInDays=7), "Name", "DeletionDate")
    refused = tried(read, SecretId="marked/one")
    described = picked(tried(server.secrets.describe_secret, SecretId="marked/one"), "Name", "DeletedDate")
    restored = tried(server.secrets.restore_secret, SecretId="marked/one")
    return marked, refused, described, restored, tried(read, SecretId="marked/one")


def what_is_marked_for_deletion_is_not_written(server):
    make(server, "unwritten/one")
    server.secrets.delete_secret(SecretId="unwritten/one", RecoveryWindowInDays=7)
    return picked(tried(server.secrets.put_secret_value, SecretId="unwritten/one", SecretString="x"), "Name")


def what_is_deleted_by_force_is_gone_at_once(server):
    make(server, "forced/one")
    server.secrets.delete_secret(SecretId="forced/one", ForceDeleteWithoutRecovery=True)
    return tried(server.secrets.get_secret_value, SecretId="forced/one")


def a_recovery_window_has_its_bounds(server):
    make(server, "window/one")
    delete = server.secrets.delete_secret
    return (
        tried(delete, SecretId="window/one", RecoveryWindowInDays=7, ForceDeleteWithoutRecovery=True),
        tried(delete, SecretId="window/one", RecoveryWindowInDays=6),
        tried(delete, SecretId="window/one", RecoveryWindowInDays=31),
        picked(tried(delete, SecretId="window/one", RecoveryWindowInDays=30), "Name"),
    )


def a_batch_names_what_failed_beside_what_was_found(server):
    for name in ("one", "two", "marked"):
        make(server, f"batch/{name}", name)
    server.secrets.delete_secret(SecretId="batch/marked", RecoveryWindowInDays=7)
    answer = server.secrets.batch_get_secret_value(SecretIdList=["batch/one", "batch/none", "batch/marked", "batch/two"])
    values = sorted((value["Name"], value["SecretString"], value["VersionId"], value["VersionStages"]) for value in answer["SecretValues"])
    return values, sorted((error["SecretId"], error["ErrorCode"]) for error in answer.get("Errors", []))


def a_batch_takes_twenty_ids_and_no_more(server):
    names = [f"twenty/{number:02}" for number in range(21)]
    for name in names:
        make(server, name)
    some = server.secrets.batch_get_secret_value(SecretIdList=names[:20])
    return len(some["SecretValues"]), picked(tried(server.secrets.batch_get_secret_value, SecretIdList=names), "Errors")


def a_batch_is_of_ids_or_of_filters(server):
    filters = [{"Key": "name", "Values": ["x"]}]
    return tried(server.secrets.batch_get_secret_value, SecretIdList=["a"], Filters=filters), tried(server.secrets.batch_get_secret_value)


def a_batch_by_filters_reads_what_they_match(server):
    for name in ("filtered/a", "filtered/b", "unfiltered/c"):
        make(server, name, name)
    answer = server.secrets.batch_get_secret_value(Filters=[{"Key": "name", "Values": ["filtered/"]}])
    return sorted(value["Name"] for value in answer["SecretValues"])


def a_list_comes_in_pages(server):
    for number in range(5):
        make(server, f"paged/{number}")
    pages, token = [], {}
    while True:
        answer = server.secrets.list_secrets(Filters=[{"Key": "name", "Values": ["paged/"]}], MaxResults=2, **token)
        pages.append(len(answer["SecretList"]))
        if "NextToken" not in answer:
            return pages
        token = {"NextToken": answer["NextToken"]}


def a_list_is_filtered_by_name_and_tags(server):
    make(server, "tagged/a", Tags=[{"Key": "team", "Value": "payments"}])
    make(server, "tagged/b", Tags=[{"Key": "team", "Value": "search"}, {"Key": "tier", "Value": "payments"}])
    make(server, "tagged/c", Description="for nobody")

    def names(*filters):
        filters = [{"Key": "name", "Values": ["tagged/"]}, *({"Key": key, "Values": values} for key, values in filters)]
        return sorted(entry["Name"] for entry in server.secrets.list_secrets(Filters=filters)["SecretList"])

    return (
        names(),
        names(("tag-key", ["team"])),
        names(("tag-value", ["payments"])),
        names(("tag-key", ["team"]), ("tag-value", ["search"])),
        names(("description", ["for"])),
        names(("tag-key", ["tier", "none"])),
    )


def what_is_marked_is_listed_only_if_asked_for(server):
    make(server, "planned/one")
    server.secrets.delete_secret(SecretId="planned/one", RecoveryWindowInDays=7)
    filters = {"Filters": [{"Key": "name", "Values": ["planned/"]}]}
    listed = server.secrets.list_secrets(**filters)["SecretList"], server.secrets.list_secrets(IncludePlannedDeletion=True, **filters)["SecretList"]
    return [[entry["Name"] for entry in entries] for entries in listed]


def tags_are_added_replaced_and_taken_away(server):
    make(server, "tags/one", Tags=[{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}])
    server.secrets.tag_resource(SecretId="tags/one", Tags=[{"Key": "a", "Value": "3"}, {"Key": "c", "Value": "4"}])
    server.secrets.untag_resource(SecretId="tags/one", TagKeys=["b", "none"])
    tags = server.secrets.describe_secret(SecretId="tags/one")["Tags"]
    return sorted((tag["Key"], tag["Value"]) for tag in tags)


def a_description_tells_stages_and_nothing_of_the_value(server):
    make(server, "told/one", Description="what it is for", KmsKeyId="alias/own")
    server.secrets.put_secret_value(SecretId="told/one", SecretString="two", ClientRequestToken=TOKEN.format(2))
    about = tried(server.secrets.describe_secret, SecretId="told/one")
    return picked(about, "Name", "Description", "KmsKeyId", "VersionIdsToStages")


def an_update_changes_what_it_names(server):
    make(server, "updated/one", Description="old")
    server.secrets.update_secret(SecretId="updated/one", Description="new")
    server.secrets.update_secret(SecretId="updated/one", SecretString="two", ClientRequestToken=TOKEN.format(2))
    about = tried(server.secrets.describe_secret, SecretId="updated/one")
    return about["Description"], about["VersionIdsToStages"], tried(server.secrets.get_secret_value, SecretId="updated/one")


def own_stages_are_read_and_versions_listed(server):
    make(server, "stages/one")
    put = server.secrets.put_secret_value
    put(SecretId="stages/one", SecretString="two", ClientRequestToken=TOKEN.format(2), VersionStages=["OWN"])
    own = tried(server.secrets.get_secret_value, SecretId="stages/one", VersionStage="OWN")
    current = tried(server.secrets.get_secret_value, SecretId="stages/one", VersionStage="AWSCURRENT")
    versions = server.secrets.list_secret_version_ids(SecretId="stages/one")["Versions"]
    return own, current, sorted((version["VersionId"], version["VersionStages"]) for version in versions)


def a_moved_stage_is_read_where_it_is(server):
    make(server, "moved/one")
    server.secrets.put_secret_value(SecretId="moved/one", SecretString="two", ClientRequestToken=TOKEN.format(2))
    move = {"SecretId": "moved/one", "VersionStage": "AWSCURRENT", "MoveToVersionId": TOKEN.format(1), "RemoveFromVersionId": TOKEN.format(2)}
    moved = tried(server.secrets.update_secret_version_stage, **move)
    return moved, tried(server.secrets.get_secret_value, SecretId="moved/one", VersionStage="AWSCURRENT")["SecretString"]


def the_current_version_follows_its_stage(server):
    a_moved_stage_is_read_where_it_is_in(server, "followed/one")
    return tried(server.secrets.get_secret_value, SecretId="followed/one").get("SecretString")


def a_moved_stage_is_read_where_it_is_in(server, name):
    make(server, name)
    server.secrets.put_secret_value(SecretId=name, SecretString="two", ClientRequestToken=TOKEN.format(2))
    move = {"VersionStage": "AWSCURRENT", "MoveToVersionId": TOKEN.format(1), "RemoveFromVersionId": TOKEN.format(2)}
    server.secrets.update_secret_version_stage(SecretId=name, **move)


def a_secret_is_found_by_its_whole_arn(server):
    arn = make(server, "arn/one")["ARN"]
    return tried(server.secrets.get_secret_value, SecretId=arn)["SecretString"], arn.rpartition("-")[0]


def a_secret_holds_65536_bytes(server):
    put = server.secrets.create_secret
    return [picked(tried(put, Name=f"size/{size}", SecretString="x" * size), "Name") for size in (65536, 65537)]


def a_secret_is_never_empty(server):
    return tried(server.secrets.create_secret, Name="empty/one", SecretString="", ClientRequestToken=TOKEN.format(1))


def a_value_is_text_or_bytes(server):
    make(server, "either/one")
    both = tried(server.secrets.put_secret_value, SecretId="either/one", SecretString="x", SecretBinary=b"x")
    return both, tried(server.secrets.put_secret_value, SecretId="either/one")


def a_name_has_its_letters(server):
    return tried(server.secrets.get_secret_value, SecretId="no such letters: ü")


def a_batch_with_a_malformed_name_fails_whole(server):
    make(server, "malformed/one")
    return picked(tried(server.secrets.batch_get_secret_value, SecretIdList=["malformed/one", "no such letters: ü"]), "SecretValues")


# Parameter Store


def put(server, name, value="one", kind="String", **more):
    return server.parameters.put_parameter(Name=name, Value=value, Type=kind, **more)


def parameters_of_all_types_are_read_as_they_were_written(server):
    kinds = ("String", "StringList", "SecureString")
    written = [plain(put(server, f"/types/{kind}", "a,b", kind)) for kind in kinds]
    read = [tried(server.parameters.get_parameter, Name=f"/types/{kind}", WithDecryption=True) for kind in kinds]
    return written, read


def a_secure_string_is_ciphertext_without_decryption(server):
    put(server, "/cipher/one", "plaintext", "SecureString")
    return "plaintext" in tried(server.parameters.get_parameter, Name="/cipher/one")["Parameter"]["Value"]


def a_parameter_is_overwritten_only_if_asked(server):
    put(server, "/over/one")
    refused = tried(server.parameters.put_parameter, Name="/over/one", Value="two", Type="String")
    return refused, tried(server.parameters.put_parameter, Name="/over/one", Value="two", Overwrite=True)["Version"]


def versions_and_labels_select(server):
    put(server, "/select/one")
    put(server, "/select/one", "two", Overwrite=True)
    put(server, "/select/one", "three", Overwrite=True)
    labelled = tried(server.parameters.label_parameter_version, Name="/select/one", ParameterVersion=2, Labels=["prod"])
    read = server.parameters.get_parameter
    return labelled, [tried(read, Name=f"/select/one{selector}") for selector in ("", ":1", ":prod", ":9")]


def an_answer_tells_its_selector(server):
    put(server, "/selector/one")
    return tried(server.parameters.get_parameter, Name="/selector/one:1")["Parameter"]["Name"], server.parameters.get_parameter(
        Name="/selector/one:1"
    )["Parameter"].get("Selector")


def a_label_moves_and_bad_ones_are_named(server):
    put(server, "/label/one")
    put(server, "/label/one", "two", Overwrite=True)
    label = server.parameters.label_parameter_version
    seen = [tried(label, Name="/label/one", ParameterVersion=version, Labels=["prod", "aws-not"]) for version in (1, 2)]
    return seen, tried(server.parameters.get_parameter, Name="/label/one:prod")["Parameter"]["Value"], tried(
        label, Name="/label/one", ParameterVersion=9, Labels=["prod"]
    )


def a_batch_of_parameters_names_those_that_are_not_there(server):
    put(server, "/many/one")
    put(server, "/many/two", "two")
    answer = server.parameters.get_parameters(Names=["/many/one", "/many/none", "/many/two", "/many/one:9"])
    return sorted((entry["Name"], entry["Value"]) for entry in answer["Parameters"]), sorted(answer["InvalidParameters"])


def a_batch_takes_ten_names_and_no_more(server):
    names = [f"/ten/{number}" for number in range(11)]
    for name in names:
        put(server, name)
    some = server.parameters.get_parameters(Names=names[:10])
    return len(some["Parameters"]), tried(server.parameters.get_parameters, Names=names)


def a_path_is_read_in_pages_of_ten(server):
    for number in range(12):
        put(server, f"/path/{number:02}")
    for name in ("/path/deep/one", "/path/deep/er/two", "/pathology"):
        put(server, name)

    def pages(**more):
        seen, token = [], {}
        while True:
            answer = server.parameters.get_parameters_by_path(Path="/path", **more, **token)
            seen.append(sorted(entry["Name"] for entry in answer["Parameters"]))
            if "NextToken" not in answer:
                return [len(page) for page in seen], sorted(name for page in seen for name in page)
            token = {"NextToken": answer["NextToken"]}

    return pages(), pages(Recursive=True)


def pages_of_a_path_are_ten_at_most(server):
    put(server, "/most/one")
    return tried(server.parameters.get_parameters_by_path, Path="/most", MaxResults=11)


def descriptions_are_filtered(server):
    put(server, "/about/one", Description="d", Tags=[{"Key": "team", "Value": "a"}])
    put(server, "/about/two", kind="SecureString")

    def names(**filters):
        answer = server.parameters.describe_parameters(ParameterFilters=[{"Key": "Name", "Option": "BeginsWith", "Values": ["/about/"]}, filters])
        return sorted((entry["Name"], entry["Type"], entry["Version"], entry["Tier"]) for entry in answer["Parameters"])

    return (
        names(Key="Type", Values=["SecureString"]),
        names(Key="tag:team", Values=["a"]),
        names(Key="tag:team", Values=["b"]),
        names(Key="Path", Option="Recursive", Values=["/about"]),
    )


def a_deleted_parameter_is_not_found(server):
    put(server, "/gone/one")
    server.parameters.delete_parameter(Name="/gone/one")
    return (
        tried(server.parameters.get_parameter, Name="/gone/one"),
        tried(server.parameters.delete_parameter, Name="/gone/one"),
        tried(server.parameters.delete_parameters, Names=["/gone/one"]),
    )


def tags_of_a_parameter_are_listed(server):
    put(server, "/tags/one", Tags=[{"Key": "a", "Value": "1"}])
    resource = {"ResourceType": "Parameter", "ResourceId": "/tags/one"}
    server.parameters.add_tags_to_resource(Tags=[{"Key": "b", "Value": "2"}], **resource)
    server.parameters.remove_tags_from_resource(TagKeys=["a"], **resource)
    return tried(server.parameters.list_tags_for_resource, **resource)


def tags_and_overwriting_exclude_each_other(server):
    put(server, "/exclusive/one")
    more = {"Tags": [{"Key": "a", "Value": "1"}], "Overwrite": True}
    return tried(server.parameters.put_parameter, Name="/exclusive/one", Value="x", Type="String", **more)


def a_history_has_every_version(server):
    put(server, "/history/one")
    put(server, "/history/one", "two", Overwrite=True)
    answer = server.parameters.get_parameter_history(Name="/history/one", WithDecryption=True)
    return [(entry["Version"], entry["Value"], entry["Labels"]) for entry in answer["Parameters"]]


def a_parameter_holds_4096_bytes_or_8192(server):
    write = server.parameters.put_parameter
    sizes = (("Standard", 4096), ("Standard", 4097), ("Advanced", 8192), ("Advanced", 8193))
    return [picked(tried(write, Name=f"/size/{size}", Value="x" * size, Type="String", Tier=tier), "Version") for tier, size in sizes]


def a_path_begins_with_a_slash(server):
    return tried(server.parameters.get_parameters_by_path, Path="path")


def names_of_the_vendor_are_refused(server):
    return tried(server.parameters.put_parameter, Name="/aws/one", Value="x", Type="String")


# STS


def a_session_of_a_role_is_who_it_says(server):
    answer = server.sts.assume_role(RoleArn=ROLE, RoleSessionName="judge", DurationSeconds=900)
    given = answer["Credentials"]
    key = {"access_key": given["AccessKeyId"], "secret_key": given["SecretAccessKey"], "session_token": given["SessionToken"]}
    return answer["AssumedRoleUser"]["Arn"], server.client("sts", key).get_caller_identity()["Arn"]


# What AWS does where moto does not.
MOTO_IS_WRONG = {
    "what_is_marked_for_deletion_is_not_written": "InvalidRequestException",
    "a_batch_is_of_ids_or_of_filters": ("InvalidParameterException", "InvalidParameterException"),
    "a_value_is_text_or_bytes": ("InvalidParameterException", "InvalidRequestException"),
    "an_answer_tells_its_selector": ("/selector/one", ":1"),
    "a_path_begins_with_a_slash": "ValidationException",
    "a_batch_takes_twenty_ids_and_no_more": (20, "ValidationException"),
    "the_current_version_follows_its_stage": "one",
    "a_secret_holds_65536_bytes": [{"Name": "size/65536"}, "ValidationException"],
    "a_secret_is_never_empty": "ValidationException",
    "a_name_has_its_letters": "ValidationException",
    "a_batch_with_a_malformed_name_fails_whole": "ValidationException",
    "a_secure_string_is_ciphertext_without_decryption": False,
    "a_parameter_holds_4096_bytes_or_8192": [{"Version": 1}, "ValidationException"] * 2,
}

HELPERS = {"tried", "plain", "picked", "make", "put", "compare", "rows", "seen_by", "a_moved_stage_is_read_where_it_is_in"}


def rows():
    return [row for name, row in globals().items() if callable(row) and name not in HELPERS and row.__module__ == __name__ and name[0].islower()]


def seen_by(server, row):
    try:
        return repr(row(server))
    except Exception as error:
        return f"it ends with {type(error).__name__}: {error}"


def compare(where):
    ours, moto = (Server(where[name]["url"], where[name]) for name in ("ours", "moto"))
    for row in rows():
        of_ours, of_moto = seen_by(ours, row), seen_by(moto, row)
        if row.__name__ in MOTO_IS_WRONG:
            wanted = repr(MOTO_IS_WRONG[row.__name__])
            if of_ours != wanted:
                yield f"{row.__name__}: ours gives {of_ours}, AWS {wanted}"
            if of_moto == wanted:
                yield f"{row.__name__}: moto is right by now"
        elif of_ours != of_moto:
            yield f"{row.__name__}: ours gives {of_ours}, moto {of_moto}"
    for name in MOTO_IS_WRONG:
        if name not in globals():
            yield f"{name} is no row"
