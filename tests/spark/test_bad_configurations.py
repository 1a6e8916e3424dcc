"""Bad properties are refused with the property's name and never its value; good odd ones are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from muster.spark.annotations import application_sizes
from muster.spark.errors import InvalidSizeError, PropertiesError, SparkConfigurationError
from muster.spark.gang import sizes_from_properties
from muster.spark.properties import ALLOWED_KEYS, MAX_BYTES, SparkProperties, read_properties
from muster.spark.sizes import ExecutorRequests, Memory, executor_size, major_version, profile_size

SECRET = "hunter2"
DYNAMIC = {"spark.dynamicAllocation.enabled": "true"}


@pytest.mark.parametrize(
    ("conf", "key"),
    [
        ({"spark.executor.instances": "0"}, "spark.executor.instances"),
        ({"spark.executor.instances": "-1"}, "spark.executor.instances"),
        ({"spark.executor.instances": "2.5"}, "spark.executor.instances"),
        ({"spark.executor.instances": "1e3"}, "spark.executor.instances"),
        ({"spark.executor.instances": "1_000"}, "spark.executor.instances"),
        ({"spark.executor.instances": "٣"}, "spark.executor.instances"),
        ({"spark.executor.instances": SECRET}, "spark.executor.instances"),
        ({"spark.executor.instances": ""}, "spark.executor.instances"),
        ({"spark.executor.instances": "1000001"}, "spark.executor.instances"),
        ({"spark.executor.instances": "9" * 5000}, "spark.executor.instances"),
        (DYNAMIC | {"spark.executor.instances": "-1"}, "spark.executor.instances"),
        (DYNAMIC | {"spark.dynamicAllocation.minExecutors": "-1"}, "spark.dynamicAllocation.minExecutors"),
        (DYNAMIC | {"spark.dynamicAllocation.minExecutors": "2000000"}, "spark.dynamicAllocation.minExecutors"),
        (DYNAMIC | {"spark.dynamicAllocation.initialExecutors": "1.5"}, "spark.dynamicAllocation.initialExecutors"),
        (DYNAMIC | {"spark.dynamicAllocation.maxExecutors": "0"}, "spark.dynamicAllocation.maxExecutors"),
        (DYNAMIC | {"spark.dynamicAllocation.maxExecutors": "-5"}, "spark.dynamicAllocation.maxExecutors"),
        (DYNAMIC | {"spark.dynamicAllocation.maxExecutors": "infinity"}, "spark.dynamicAllocation.maxExecutors"),
        (
            DYNAMIC | {"spark.dynamicAllocation.minExecutors": "5", "spark.dynamicAllocation.maxExecutors": "4"},
            "spark.dynamicAllocation.maxExecutors",
        ),
        ({"spark.dynamicAllocation.enabled": "yes"}, "spark.dynamicAllocation.enabled"),
        ({"spark.executor.memory": "0"}, "spark.executor.memory"),
        ({"spark.executor.memory": "1023k"}, "spark.executor.memory"),
        ({"spark.executor.memory": "-4g"}, "spark.executor.memory"),
        ({"spark.executor.memory": "1.5g"}, "spark.executor.memory"),
        ({"spark.executor.memory": "4x"}, "spark.executor.memory"),
        ({"spark.executor.memory": SECRET}, "spark.executor.memory"),
        ({"spark.executor.memory": "${env:MEMORY}"}, "spark.executor.memory"),
        ({"spark.executor.memory": "${spark.executor.memory}"}, "spark.executor.memory"),
        ({"spark.executor.memory": "9000p"}, "spark.executor.memory"),
        ({"spark.executor.memory": "8191p", "spark.executor.memoryOverhead": "8191p"}, "spark.executor.memory"),
        ({"spark.executor.memory": "9" * 5000}, "spark.executor.memory"),
        ({"spark.driver.memory": "two"}, "spark.driver.memory"),
        ({"spark.executor.memoryOverhead": "-1"}, "spark.executor.memoryOverhead"),
        ({"spark.executor.memoryOverheadFactor": "0"}, "spark.executor.memoryOverheadFactor"),
        ({"spark.executor.memoryOverheadFactor": "NaN"}, "spark.executor.memoryOverheadFactor"),
        ({"spark.executor.memoryOverheadFactor": "1e400"}, "spark.executor.memoryOverheadFactor"),
        ({"spark.kubernetes.memoryOverheadFactor": "10%"}, "spark.kubernetes.memoryOverheadFactor"),
        ({"spark.executor.minMemoryOverhead": "small"}, "spark.executor.minMemoryOverhead"),
        ({"spark.memory.offHeap.enabled": "true"}, "spark.memory.offHeap.size"),
        ({"spark.memory.offHeap.enabled": "on"}, "spark.memory.offHeap.enabled"),
        ({"spark.executor.cores": "0"}, "spark.executor.cores"),
        ({"spark.executor.cores": "-2"}, "spark.executor.cores"),
        ({"spark.executor.cores": "1.5"}, "spark.executor.cores"),
        ({"spark.driver.cores": "0"}, "spark.driver.cores"),
        ({"spark.kubernetes.executor.request.cores": "3.5 cores"}, "spark.kubernetes.executor.request.cores"),
        ({"spark.kubernetes.executor.request.cores": "-1"}, "spark.kubernetes.executor.request.cores"),
        ({"spark.kubernetes.driver.limit.cores": SECRET}, "spark.kubernetes.driver.limit.cores"),
        (
            {"spark.kubernetes.executor.limit.cores": "1", "spark.executor.cores": "2"},
            "spark.kubernetes.executor.limit.cores",
        ),
        ({"spark.executor.resource.gpu.amount": "1"}, "spark.executor.resource.gpu.vendor"),
        ({"spark.executor.resource.gpu.vendor": "nvidia.com"}, "spark.executor.resource.gpu.amount"),
        (
            {"spark.driver.resource.gpu.amount": "-1", "spark.driver.resource.gpu.vendor": "nvidia.com"},
            "spark.driver.resource.gpu.amount",
        ),
        (
            {"spark.driver.resource.gpu.amount": "0.5", "spark.driver.resource.gpu.vendor": "nvidia.com"},
            "spark.driver.resource.gpu.amount",
        ),
    ],
)
def test_a_bad_value_is_refused_by_its_keys_name(conf: dict[str, str], key: str) -> None:
    with pytest.raises(InvalidSizeError) as caught:
        application_sizes(SparkProperties(conf), "4.3.0")
    assert caught.value.source == key
    assert caught.value.message.startswith(key)
    assert caught.value.reason == "InvalidSize"
    assert SECRET not in caught.value.message
    assert len(caught.value.message) < 300


@given(st.dictionaries(st.sampled_from(sorted(ALLOWED_KEYS)), st.text() | st.from_regex(r"[-+]?[0-9.]{1,22}[a-z]?")))
def test_whatever_the_values_there_are_sizes_or_an_error_for_people(conf: dict[str, str]) -> None:
    try:
        sizes = application_sizes(SparkProperties(conf), "4.3.0")
    except SparkConfigurationError as error:
        assert error.message
        return
    assert sizes.minimum >= 0
    assert sizes.maximum is None or sizes.maximum >= sizes.minimum
    for pod in (sizes.driver, sizes.executor):
        assert pod is not None
        assert all(0 < amount < 2**63 for _, amount in pod.requests.amounts)


def test_a_ceiling_beyond_any_cluster_is_no_ceiling() -> None:
    sizes = application_sizes(
        SparkProperties(DYNAMIC | {"spark.dynamicAllocation.maxExecutors": "2000000000"}), "4.3.0"
    )
    assert (sizes.minimum, sizes.maximum) == (0, None)


def test_client_mode_has_no_driver_pod_to_size() -> None:
    sizes = sizes_from_properties(SparkProperties({}), "4.3.0", client_mode=True)
    assert sizes.driver is None
    assert sizes.minimum == 2


def test_a_profile_with_its_own_heap_keeps_the_overhead_of_the_default_heap() -> None:
    size = profile_size(SparkProperties({}), "4.3.0", ExecutorRequests(memory_mib=16384))
    assert size.memory == Memory(heap_mib=16384, overhead_mib=384)
    assert size.requests.get("memory") == 16768 * 2**20


@pytest.mark.parametrize(
    ("label", "major"), [("4.3.0", 4), ("3.5.9", 3), ("3.5.1-amzn-0", 3), ("4.2.0-SNAPSHOT", 4), ("", 4), ("main", 4)]
)
def test_vendors_versions_are_understood(label: str, major: int) -> None:
    assert major_version(label) == major


def test_the_parts_of_an_executors_memory_are_told() -> None:
    properties = read_properties(
        "spark.executor.memory=8g\nspark.memory.offHeap.enabled=true\nspark.memory.offHeap.size=2g\n"
        "spark.kubernetes.resource.type=python\nspark.kubernetes.memoryOverheadFactor=0.4\n"
        "spark.executor.pyspark.memory=1g\n"
    )
    size = executor_size(properties, "4.3.0")
    assert size.memory == Memory(heap_mib=8192, overhead_mib=3276, off_heap_mib=2048, pyspark_mib=1024)


def test_only_allowed_properties_are_kept_and_none_is_shown() -> None:
    properties = read_properties(
        f"spark.hadoop.fs.s3a.secret.key={SECRET}\nspark.executor.memory=3141m\nspark.executor.resource.gpu.amount=1\n"
        f"spark.executor.resource.gpu.discoveryScript={SECRET}\n"
    )
    assert set(properties) == {"spark.executor.memory", "spark.executor.resource.gpu.amount"}
    assert SECRET not in repr(properties)
    assert "3141" not in repr(properties)
    assert "spark.executor.memory" in repr(properties)


def test_a_reference_to_a_secret_does_not_show_it() -> None:
    properties = read_properties(f"spark.secret={SECRET}\nspark.executor.memory=${{spark.secret}}\n")
    with pytest.raises(InvalidSizeError) as caught:
        executor_size(properties, "4.3.0")
    assert SECRET not in str(caught.value)


def test_references_that_multiply_stay_small() -> None:
    bomb = {f"spark.a{number}": f"${{spark.a{number + 1}}}" * 50 for number in range(20)}
    properties = SparkProperties(bomb | {"spark.executor.memory": "${spark.a0}", "spark.a20": "1" * 1000})
    assert len(properties["spark.executor.memory"]) < 2**21


def test_the_last_of_two_equal_keys_wins() -> None:
    assert read_properties("spark.executor.memory=1g\nspark.executor.memory=2g\n")["spark.executor.memory"] == "2g"


def test_bytes_that_are_no_text_name_their_line() -> None:
    with pytest.raises(PropertiesError) as caught:
        read_properties(b"spark.executor.memory=4g\r\n# fine\rspark.password=hunter2\xff\n")
    assert caught.value.line == 3
    assert caught.value.reason == "InvalidProperties"
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("text", ["#" * MAX_BYTES, "ü" * (MAX_BYTES // 2), b"#" * MAX_BYTES])
def test_a_mebibyte_is_read(text: str | bytes) -> None:
    assert len(read_properties(text)) == 0


@pytest.mark.parametrize("text", ["#" * (MAX_BYTES + 1), "ü" * (MAX_BYTES // 2 + 1), b"#" * (MAX_BYTES + 1)])
def test_more_than_a_mebibyte_is_refused(text: str | bytes) -> None:
    with pytest.raises(PropertiesError, match="larger than 1048576 bytes"):
        read_properties(text)
