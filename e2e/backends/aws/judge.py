"""Judges requests and answers by the vendor's own models and signer, and our server by the vendor's own client.

  judge.py requests            reads {"keys": [...], "requests": [...]} and prints one line for each thing that is wrong
  judge.py compare OURS MOTO   runs the rows of rows.py against both servers and prints one line for each difference

No line holds a value of a request or an answer: only operations, members and constraints.
"""

import base64
import binascii
import hashlib
import json
import sys
import urllib.parse
import xml.etree.ElementTree as tree

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import botocore.model
import botocore.parsers
import regex

MODELS = {}
TARGETS = {"secretsmanager": "secretsmanager", "AmazonSSM": "ssm"}
# Errors that come from before any service, and those that SSM's model leaves out.
COMMON = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "SerializationException",
    "ThrottlingException",
    "UnknownOperationException",
    "UnrecognizedClientException",
    "ValidationException",
    # STS writes the same without its ending.
    "AccessDenied",
    "ExpiredToken",
    "InvalidAction",
    "InvalidClientTokenId",
    "InvalidParameterValue",
    "MissingAuthenticationToken",
    "SignatureDoesNotMatch",
    "Throttling",
    "ValidationError",
}


def model(service):
    if service not in MODELS:
        MODELS[service] = botocore.model.ServiceModel(botocore.loaders.Loader().load_service_model(service, "service-2"), service)
    return MODELS[service]


class Request:
    def __init__(self, data):
        self.method, self.path = data["method"], data["path"]
        self.headers = [(name.lower(), value) for name, value in data["headers"]]
        self.body = base64.b64decode(data["body"])
        self.status, self.answer = data.get("status"), data.get("answer")
        if self.answer is not None:
            self.answer = base64.b64decode(self.answer)
        target = self.header("x-amz-target")
        if target:
            prefix, _, self.operation = target.partition(".")
            self.service = TARGETS.get(prefix)
        else:
            self.form = dict(urllib.parse.parse_qsl(self.body.decode(errors="replace"), keep_blank_values=True))
            self.service, self.operation = "sts", self.form.get("Action", "")

    def header(self, name):
        return next((value for key, value in self.headers if key == name), None)


def judge(request, keys):
    if request.service is None or request.operation not in model(request.service).operation_names:
        return ["it is no operation of a known service"]
    operation = model(request.service).operation_model(request.operation)
    return judge_input(request, operation) + judge_signature(request, operation, keys) + judge_answer(request, operation)


def judge_input(request, operation):
    wrong = []
    if request.method != "POST" or request.path != "/":
        wrong.append("it is not posted to /")
    if request.service == "sts":
        if request.form.get("Version") != operation.service_model.api_version:
            wrong.append("its version is not that of the model")
        rest = {name: value for name, value in request.form.items() if name not in ("Action", "Version")}
        value = from_form(operation.input_shape, rest, "")
        return wrong + [f"{name} is no member" for name in rest] + list(check(operation.input_shape, value, "input"))
    content_type = request.header("content-type")
    if content_type != "application/x-amz-json-1.1":
        wrong.append("its content type is not application/x-amz-json-1.1")
    try:
        value = json.loads(request.body)
    except ValueError:
        return wrong + ["its body is no JSON"]
    return wrong + list(check(operation.input_shape, value, "input"))


def from_form(shape, rest, prefix):
    """The value at a prefix; takes from `rest` what it uses."""
    if shape.type_name == "structure":
        members = {}
        for name, member in shape.members.items():
            value = from_form(member, rest, f"{prefix}.{name}" if prefix else name)
            if value is not None:
                members[name] = value
        return members if members or not prefix else None
    if shape.type_name == "list":
        values = []
        while (value := from_form(shape.member, rest, f"{prefix}.member.{len(values) + 1}")) is not None:
            values.append(value)
        return values or None
    value = rest.pop(prefix, None)
    if value is not None and shape.type_name in ("integer", "long"):
        return int(value) if value.lstrip("-").isdigit() else value
    return value


def check(shape, value, place):
    """What the model says of a value in JSON and does not hold."""
    kind = shape.type_name
    if kind == "structure":
        if not isinstance(value, dict):
            yield f"{place} is no structure"
            return
        for name in getattr(shape, "required_members", []):
            if value.get(name) is None:
                yield f"{place}.{name} is missing"
        for name, inner in value.items():
            if name not in shape.members:
                yield f"{place}.{name} is no member"
            elif inner is None:
                yield f"{place}.{name} is null"
            else:
                yield from check(shape.members[name], inner, f"{place}.{name}")
    elif kind == "list":
        if not isinstance(value, list):
            yield f"{place} is no list"
            return
        # AWS itself answers with empty lists where its models want an entry (`InvalidParameters`).
        if value or not place.startswith("output"):
            yield from bounds(shape, len(value), place, "entries")
        for number, inner in enumerate(value):
            yield from check(shape.member, inner, f"{place}[{number}]")
    elif kind == "map":
        if not isinstance(value, dict):
            yield f"{place} is no map"
            return
        for key, inner in value.items():
            yield from check(shape.key, key, f"{place} key")
            yield from check(shape.value, inner, f"{place} entry")
    elif kind == "string":
        if not isinstance(value, str):
            yield f"{place} is no string"
            return
        yield from bounds(shape, len(value), place, "characters")
        if shape.enum and value not in shape.enum:
            yield f"{place} is none of the words of its enum"
        pattern = shape.metadata.get("pattern")
        if pattern and not regex.fullmatch(java_pattern(pattern), value):
            yield f"{place} does not match its pattern"
    elif kind == "blob":
        try:
            yield from bounds(shape, len(base64.b64decode(value, validate=True)), place, "bytes")
        except (TypeError, binascii.Error):
            yield f"{place} is no base64"
    elif kind in ("integer", "long"):
        if not isinstance(value, int) or isinstance(value, bool):
            yield f"{place} is no whole number"
        else:
            yield from bounds(shape, value, place, "in value")
    elif kind == "boolean":
        if not isinstance(value, bool):
            yield f"{place} is no boolean"
    elif kind in ("timestamp", "float", "double"):
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            yield f"{place} is no number of seconds"


def java_pattern(pattern):
    """STS writes code points without braces."""
    return regex.sub(r"\\u10000-\\u10FFFF", r"\\U00010000-\\U0010FFFF", pattern)


def bounds(shape, size, place, what):
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        yield f"{place} has {size} {what}, of at least {least}"
    if most is not None and size > most:
        yield f"{place} has {size} {what}, of at most {most}"


def judge_signature(request, operation, keys):
    authorization = request.header("authorization")
    if authorization is None:
        # Its token says who it is.
        return [] if operation.name == "AssumeRoleWithWebIdentity" else ["it is not signed"]
    algorithm, _, rest = authorization.partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    credential = parts.get("Credential", "").split("/")
    if algorithm != "AWS4-HMAC-SHA256" or len(credential) != 5 or credential[4] != "aws4_request":
        return ["its authorization is not that of Signature Version 4"]
    access_key, date, region, service, _ = credential
    signed = parts.get("SignedHeaders", "").split(";")
    wrong = [f"{name} is not signed" for name, _ in request.headers if name not in signed and (name == "host" or name.startswith("x-amz-"))]
    if service != operation.service_model.signing_name:
        wrong.append("it is signed for another service")
    timestamp = request.header("x-amz-date") or ""
    if not timestamp.startswith(date) or not date:
        wrong.append("its scope is of another day")
    content = request.header("x-amz-content-sha256")
    if content is not None and content != hashlib.sha256(request.body).hexdigest():
        wrong.append("its x-amz-content-sha256 is not that of its body")
    key = next((key for key in keys if key["access_key"] == access_key), None)
    if key is None:
        return wrong + ["nobody has its access key"]
    if request.header("x-amz-security-token") != key.get("session_token"):
        wrong.append("its session token is not that of its access key")
    if recomputed(request, key, region, service, signed, timestamp) != parts.get("Signature"):
        wrong.append("its signature is not the one that botocore computes")
    return wrong


def recomputed(request, key, region, service, signed, timestamp):
    credentials = botocore.credentials.Credentials(key["access_key"], key["secret_key"])
    auth = botocore.auth.SigV4Auth(credentials, service, region)
    headers = {name: value for name, value in request.headers if name in signed}
    plain = botocore.awsrequest.AWSRequest(request.method, f"http://{headers.get('host', '')}{request.path}", headers, request.body)
    plain.context["timestamp"] = timestamp
    return auth.signature(auth.string_to_sign(plain, auth.canonical_request(plain)), plain)


def judge_answer(request, operation):
    if request.answer is None:
        return []
    protocol = operation.service_model.resolved_protocol
    headers = {"content-type": "text/xml" if protocol == "query" else "application/x-amz-json-1.1"}
    response = {"status_code": request.status, "headers": headers, "body": request.answer}
    shape = operation.output_shape
    try:
        if request.status >= 300:
            code = botocore.parsers.create_parser(protocol).parse(response, shape).get("Error", {}).get("Code")
            known = {error.name for error in operation.error_shapes} | {error.error_code for error in operation.error_shapes} | COMMON
            return [] if code in known else ["the error of its answer is none that the model knows"]
        if shape is None:
            return [] if request.answer in (b"", b"{}") else ["its answer has a body, and the model knows none"]
        if protocol == "query":
            wrong = list(check_xml(shape, result_of(request.answer, operation), "output"))
        else:
            wrong = list(check(shape, json.loads(request.answer), "output"))
        if not wrong:
            botocore.parsers.create_parser(protocol).parse(response, shape)
        return wrong
    except (ValueError, tree.ParseError, botocore.parsers.ResponseParserError):
        return ["its answer cannot be parsed"]


def result_of(answer, operation):
    root = tree.fromstring(answer)
    space = root.tag.partition("}")[0] + "}"
    return root.find(f"{space}{operation.name}Result")


def check_xml(shape, element, place):
    """The same for an element, whose leaves are texts."""
    if element is None:
        yield f"{place} is missing"
        return
    if shape.type_name == "structure":
        seen = {}
        for inner in element:
            seen[inner.tag.rpartition("}")[2]] = inner
        for name in getattr(shape, "required_members", []):
            if name not in seen:
                yield f"{place}.{name} is missing"
        for name, inner in seen.items():
            if name not in shape.members:
                yield f"{place}.{name} is no member"
            else:
                yield from check_xml(shape.members[name], inner, f"{place}.{name}")
    elif shape.type_name == "timestamp":
        if not regex.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", element.text or ""):
            yield f"{place} is no time"
    elif shape.type_name == "integer":
        yield from check(shape, int(element.text) if (element.text or "").isdigit() else None, place)
    else:
        yield from check(shape, element.text or "", place)


def requests():
    data = json.load(sys.stdin)
    for number, entry in enumerate(data["requests"]):
        request = Request(entry)
        for wrong in judge(request, data["keys"]):
            print(f"{number}: {request.operation}: {wrong}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["requests"]:
        requests()
    elif sys.argv[1:2] == ["compare"]:
        import rows

        for line in rows.compare(json.load(sys.stdin)):
            print(line)
    else:
        sys.exit(__doc__)
