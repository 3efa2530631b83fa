package dev.t5g2.demo.core

import org.json.JSONArray
import org.json.JSONException
import org.json.JSONObject

// The JSON of t5g2-bench, to which this app adds the state of the device before and after.

private const val FORMAT = "t5g2-bench"
private const val FORMAT_VERSION = 1L
private const val BEFORE = "device_before"
private const val AFTER = "device_after"

/** What t5g2-bench printed, with the device's states. Throws [Failure] for what is no such report. */
internal fun completeReport(printed: String, before: DeviceState, after: DeviceState): String = try {
    JSONObject(printed).put(BEFORE, before.toJson()).put(AFTER, after.toJson()).toString(1)
} catch (error: JSONException) {
    throw notAReport(error)
}

/** Throws [Failure] for what is no report of this format. */
internal fun reportFrom(text: String): BenchmarkReport = try {
    val json = JSONObject(text)
    if (json.optString("format") != FORMAT || json.whole("format_version") != FORMAT_VERSION) throw notAReport(null)
    val machine = json.getJSONObject("machine")
    BenchmarkReport(
        date = json.text("date"),
        version = json.text("version"),
        machine = "${machine.text("cpu")}, ${machine.whole("cores")} cores",
        repeat = json.whole("repeat").toInt(),
        target = json.whole("target").toInt(),
        loading = json.getJSONArray("loading").objects().map(::loadingFrom),
        speed = json.getJSONArray("results").objects().map(::speedFrom),
        before = json.objectOrNull(BEFORE)?.let(::deviceFrom),
        after = json.objectOrNull(AFTER)?.let(::deviceFrom),
    )
} catch (error: JSONException) {
    throw notAReport(error)
} catch (error: IllegalArgumentException) {
    throw notAReport(error)
}

internal fun BenchmarkOptions.toJson(): JSONObject = JSONObject()
    .put("threads", JSONArray(threads))
    .put("sources", JSONArray(sources))
    .put("depths", JSONArray(depths))
    .put("target", target)
    .put("repeat", repeat)

internal fun benchmarkOptionsFrom(json: JSONObject) = BenchmarkOptions(
    threads = json.getJSONArray("threads").numbers(),
    sources = json.getJSONArray("sources").numbers(),
    depths = json.getJSONArray("depths").numbers(),
    target = json.whole("target").toInt(),
    repeat = json.whole("repeat").toInt(),
)

private fun notAReport(error: Exception?) = Failure(
    "The bench printed something else than a report (${error?.message ?: "another format"}); install the app again.",
    error,
)

private fun JSONArray.numbers(): List<Int> = (0 until length()).map(::getInt)

private fun figure(json: JSONObject) = Figure(json.number("median"), json.number("low"), json.number("high"))

private fun loadingFrom(json: JSONObject) = LoadingRow(
    bundle = json.text("bundle"),
    kernels = json.text("kernels"),
    threads = json.whole("threads").toInt(),
    fileBytes = (json.number("file_mb") * 1e6).toLong(),
    warmSeconds = json.numberOrNull("load_warm_s"),
    coldSeconds = json.numberOrNull("load_cold_s"),
    coldFirstTokenSeconds = json.numberOrNull("first_token_cold_s"),
)

private fun speedFrom(json: JSONObject) = SpeedRow(
    bundle = json.text("bundle"),
    quantization = json.text("quantization"),
    kernels = json.text("kernels"),
    threads = json.whole("threads").toInt(),
    source = json.whole("source").toInt(),
    encode = figure(json.getJSONObject("encode_tok_s")),
    firstToken = figure(json.getJSONObject("first_token_s")),
    decode = json.getJSONArray("decode").objects().map { row ->
        DecodeRow(row.whole("depth").toInt(), figure(row.getJSONObject("tok_s")), row.numberOrNull("bandwidth_share"))
    },
    readGbPerSecond = json.number("read_gb_s"),
    residentMb = json.number("resident_mb"),
    peakMb = json.number("peak_mb"),
    throttling = json.text("throttling").takeIf { it != "none" },
)

private fun DeviceState.toJson(): JSONObject = JSONObject()
    .putOrNull("thermal", thermal)
    .putOrNull("battery_percent", batteryPercent)
    .putOrNull("battery_celsius", batteryCelsius)
    .putOrNull("charging", charging)

private fun deviceFrom(json: JSONObject) = DeviceState(
    thermal = json.textOrNull("thermal"),
    batteryPercent = if (json.isNull("battery_percent")) null else json.whole("battery_percent").toInt(),
    batteryCelsius = json.numberOrNull("battery_celsius"),
    charging = if (json.isNull("charging")) null else json.flag("charging"),
)
