package dev.t5g2.demo.core

import java.io.File
import java.io.InputStream

/** The device's memory, in bytes: all of it, and what apps can have now. */
data class Memory(val totalBytes: Long, val availableBytes: Long)

/** Reads [Memory]; called on a worker thread. */
fun interface DeviceMemory {
    fun read(): Memory
}

/**
 * The models on the device: lists, downloads, imports, deletes and chooses them. One download or import runs at a time.
 *
 * @param builtIn comes with the app; null: none.
 */
class ModelsPresenter internal constructor(
    private val library: ModelLibrary,
    private val host: EngineHost,
    threads: Threads,
    private val memory: DeviceMemory,
    private val builtIn: BuiltInBundle?,
    private val network: NetworkOptions,
    private val freeSpace: FreeSpace,
) : Presenter<ModelsState>(ModelsState(), threads) {
    constructor(library: ModelLibrary, host: EngineHost, threads: Threads, memory: DeviceMemory, builtIn: BuiltInBundle?) :
        this(library, host, threads, memory, builtIn, NetworkOptions(), File::getUsableSpace)

    /** A look-up or a transfer under way, and how to end it. */
    private class Job(val pause: () -> Unit, val cancel: () -> Unit)

    private class Found(val address: BundleAddress, val manifest: BundleManifest)

    @Volatile
    private var job: Job? = null

    @Volatile
    private var found: Found? = null // what the offer is about

    init {
        work {
            try {
                library.cleanUp()
                builtIn?.install(library)
            } finally {
                read()
                update { it.copy(loading = false) }
            }
        }
    }

    /** Reads the library anew. */
    fun refresh() = work(task = ::read)

    /** Fetches the manifest at a URL; the state's offer says what it is, or its error why it cannot be had. */
    fun lookUp(url: String) {
        val address = address(url) ?: return
        if (!begin { it.copy(lookingUp = true, offer = null, error = null) }) return
        val download = download(address)
        job = Job(download::cancel, download::cancel)
        work(::endLookUp) {
            val manifest = download.manifest()
            val offer = offer(address, manifest)
            found = Found(address, manifest)
            update { it.copy(offer = offer) }
        }
    }

    fun dismissOffer() {
        found = null
        update { it.copy(offer = null) }
    }

    /** Downloads what is offered. */
    fun download() {
        val found = found ?: return
        if (state.offer?.problems?.isEmpty() != true) return
        val title = found.manifest.title
        if (!begin { it.copy(offer = null, error = null, transfer = Transfer(Transfer.Kind.DOWNLOAD, title)) }) return
        this.found = null
        run(download(found.address), found.manifest)
    }

    /** Goes on with an unfinished download. */
    fun resume(id: String) {
        val partial = state.partials.firstOrNull { it.id == id } ?: return
        val address = address(partial.url) ?: return
        val transfer = Transfer(Transfer.Kind.DOWNLOAD, partial.title, null, partial.bytesDone, partial.bytesTotal)
        if (begin { it.copy(error = null, transfer = transfer) }) run(download(address), null)
    }

    /** Ends the download under way and keeps what has come. */
    fun pause() = end { it.pause() }

    /** Ends the look-up, download or import under way and keeps nothing of it. */
    fun cancel() = end { it.cancel() }

    /** Puts a bundle from a .zip into the library. [open] opens it, up to two times, on a worker thread. */
    fun importZip(name: String, open: () -> InputStream) {
        if (!begin { it.copy(error = null, transfer = Transfer(Transfer.Kind.IMPORT, name)) }) return
        val import = BundleImport(name, open, library, freeSpace)
        transfer(Job(import::cancel, import::cancel), import::run)
    }

    /** Uses a bundle from now on. */
    fun choose(id: String) = work {
        if (state.bundles.none { it.id == id && it.damage == null }) return@work
        library.chosen = id
        read()
    }

    /** Deletes a bundle; nothing happens for the app's own. */
    fun delete(id: String) = work {
        if (state.bundles.none { it.id == id && !it.builtIn }) return@work
        if (host.chosen?.id == id) host.choose(null)
        try {
            library.delete(id)
        } finally {
            read()
        }
    }

    /** Deletes an unfinished download; nothing happens while it runs. */
    fun discard(id: String) = work {
        library.discard(id)
        read()
    }

    fun dismissError() {
        update { it.copy(error = null) }
    }

    private fun address(url: String): BundleAddress? = try {
        BundleAddress.of(url)
    } catch (failure: Failure) {
        update { it.copy(error = failure.forUser()) }
        null
    }

    private fun download(address: BundleAddress) = BundleDownload(address, library, network, threads.work, freeSpace)

    /** Claims the one place for what takes long; false where something else has it. */
    private fun begin(change: (ModelsState) -> ModelsState): Boolean {
        var begun = false
        update { now ->
            if (now.loading || now.lookingUp || now.transfer != null) return@update now
            begun = true
            change(now)
        }
        return begun
    }

    private fun end(how: (Job) -> Unit) {
        val job = job ?: return
        update { it.copy(transfer = it.transfer?.copy(stopping = true, note = null)) }
        how(job)
    }

    private fun run(download: BundleDownload, manifest: BundleManifest?) =
        transfer(Job(download::pause, download::cancel)) { download.run(manifest, it) }

    private fun transfer(job: Job, run: ((Progress) -> Unit) -> String) {
        this.job = job
        val meter = RateMeter(threads.clock)
        var last: Progress? = null
        work(::endTransfer) {
            val id = run { progress ->
                // A new rate after a wait, and after bytes that were there already.
                val anew = progress.note != null || last == null || last?.note != null
                if (anew) meter.reset(progress.done) else meter.add(progress.done)
                last = progress
                show(progress, meter)
            }
            // The first model that is added to none is the one to use.
            if (library.chosen == null || state.bundles.none { it.id == library.chosen }) library.chosen = id
        }
    }

    private fun show(progress: Progress, meter: RateMeter) {
        updateOften { now ->
            val transfer = now.transfer ?: return@updateOften now
            val running = progress.note == null
            now.copy(
                transfer = transfer.copy(
                    title = progress.title,
                    file = progress.file,
                    bytesDone = progress.done,
                    bytesTotal = progress.total,
                    bytesPerSecond = if (running) meter.bytesPerSecond else null,
                    secondsLeft = if (running) meter.secondsLeft(progress.total - progress.done) else null,
                    note = progress.note,
                ),
            )
        }
    }

    private fun endLookUp() {
        job = null
        update { it.copy(lookingUp = false) }
    }

    private fun endTransfer() {
        job = null
        read()
        update { it.copy(transfer = null) }
    }

    private fun offer(address: BundleAddress, manifest: BundleManifest): Offer {
        val needed = manifest.memoryBytes(ModelLibrary.TYPICAL_SOURCE)
        val memory = memory.read()
        val problems = mutableListOf<String>()
        val warnings = mutableListOf<String>()
        try {
            library.refuseTwice(manifest)
        } catch (failure: Failure) {
            problems += failure.forUser()
        }
        val there = library.partials().firstOrNull { it.url == address.text }?.bytesDone ?: 0
        BundleDownload.spaceProblem(manifest.totalBytes - there, freeSpace(library.place()))?.let { problems += it }
        if (needed > memory.totalBytes * USABLE_SHARE) {
            problems += "It takes ${megabytes(needed)} of memory, and the device has ${megabytes(memory.totalBytes)} for " +
                "all apps together; choose a smaller model."
        } else if (needed > memory.availableBytes) {
            warnings += "It takes ${megabytes(needed)} of memory, and ${megabytes(memory.availableBytes)} are free now; " +
                "close other apps before using it."
        }
        if (!manifest.hasTokenizer) warnings += "It has no tokenizer: it can be measured, not asked."
        return Offer(
            url = address.text,
            title = manifest.title,
            bytes = manifest.totalBytes,
            quantization = manifest.quantization,
            checkpoint = manifest.checkpoint,
            hasVision = manifest.hasVision,
            maxSource = manifest.maxSource,
            maxTarget = manifest.maxTarget,
            memoryBytes = needed,
            problems = problems,
            warnings = warnings,
        )
    }

    /** Reads the library, and sees to it that a bundle is chosen where one is there. */
    @Synchronized
    private fun read() {
        val bundles = library.bundles()
        val usable = bundles.filter { it.damage == null }
        val before = library.chosen
        val chosen = usable.firstOrNull { it.id == before } ?: usable.firstOrNull { it.builtIn } ?: usable.firstOrNull()
        if (chosen?.id != before) library.chosen = chosen?.id
        val partials = library.partials()
        host.choose(chosen)
        update { it.copy(bundles = bundles, partials = partials, chosen = chosen?.id) }
    }

    /** Runs [task] on a worker thread, then [after]; what goes wrong in either is shown. */
    private fun work(after: () -> Unit = {}, task: () -> Unit) = threads.work.execute {
        showingErrors(task)
        showingErrors(after)
    }

    private fun showingErrors(task: () -> Unit) = guarded(
        { error -> if (error !is Stopped) update { it.copy(error = error.forUser()) } }, // the user wanted it to stop
        task,
    )

    private companion object {
        /** Of the device's memory; the rest is the system's and other apps'. */
        const val USABLE_SHARE = 0.75
    }
}
