package dev.t5g2.demo.core

import java.io.File

/**
 * What the bench is asked to measure; lengths in tokens.
 *
 * @property threads CPU threads, each measured in turn; empty: as many as the engine finds useful.
 * @property sources source lengths.
 * @property depths target positions to decode from.
 * @property target tokens decoded in one run.
 * @property repeat runs of each figure, after one that is not counted.
 */
data class BenchmarkOptions(
    val threads: List<Int> = emptyList(),
    val sources: List<Int> = listOf(64, 512),
    val depths: List<Int> = listOf(0, 256),
    val target: Int = 64,
    val repeat: Int = 5,
)

/** State of the device, before or after. Null: the device does not say. [thermal] such as "none", "light", "severe". */
data class DeviceState(val thermal: String?, val batteryPercent: Int?, val batteryCelsius: Double?, val charging: Boolean?)

/** Reads [DeviceState]; called on a worker thread. */
fun interface DeviceMonitor {
    fun read(): DeviceState
}

/**
 * @property progress the bench's own words on what it measures now.
 * @property elapsedSeconds of the run under way.
 * @property report of the last run that ended, also after a restart of the app.
 * @property reportFile its JSON, to be shared.
 */
data class BenchmarkState(
    val restoring: Boolean = true,
    val model: ModelInfo? = null,
    val options: BenchmarkOptions = BenchmarkOptions(),
    val running: Boolean = false,
    val stopping: Boolean = false,
    val progress: String? = null,
    val elapsedSeconds: Double? = null,
    val report: BenchmarkReport? = null,
    val reportFile: File? = null,
    val error: String? = null,
) {
    val canStart: Boolean get() = !restoring && model != null && !running
}

/** Median of some runs, and the quartiles below and above it. */
data class Figure(val median: Double, val low: Double, val high: Double) {
    /** Half the range between the quartiles. */
    val spread: Double get() = (high - low) / 2
}

/**
 * What t5g2-bench measured.
 *
 * @property date ISO 8601, in UTC.
 * @property machine CPU and cores.
 */
data class BenchmarkReport(
    val date: String,
    val version: String,
    val machine: String,
    val repeat: Int,
    val target: Int,
    val loading: List<LoadingRow>,
    val speed: List<SpeedRow>,
    val before: DeviceState?,
    val after: DeviceState?,
)

/** Opening a bundle, in seconds; null: could not be measured on this device. [fileBytes] of its programs. */
data class LoadingRow(
    val bundle: String,
    val kernels: String,
    val threads: Int,
    val fileBytes: Long,
    val warmSeconds: Double?,
    val coldSeconds: Double?,
    val coldFirstTokenSeconds: Double?,
)

/**
 * Speed at one number of threads and one source length.
 *
 * @property encode source tokens a second.
 * @property firstToken seconds from a source's ids to the first token.
 * @property readGbPerSecond what a plain loop reads from memory.
 * @property throttling null: none, else what slowed down.
 */
data class SpeedRow(
    val bundle: String,
    val quantization: String,
    val kernels: String,
    val threads: Int,
    val source: Int,
    val encode: Figure,
    val firstToken: Figure,
    val decode: List<DecodeRow>,
    val readGbPerSecond: Double,
    val residentMb: Double,
    val peakMb: Double,
    val throttling: String?,
)

/** Tokens a second from target position [depth]; [bandwidthShare] of [SpeedRow.readGbPerSecond], null where not known. */
data class DecodeRow(val depth: Int, val tokensPerSecond: Figure, val bandwidthShare: Double?)
