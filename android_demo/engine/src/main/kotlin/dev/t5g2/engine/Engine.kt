package dev.t5g2.engine

import java.io.File

/**
 * An opened bundle.
 *
 * All functions may be called from any number of threads at a time; those that compute take turns, since each uses all of the
 * process's CPU threads. [open] and [encode] take long: call them off the main thread.
 *
 * [close] it when it is no longer needed: that frees its memory once no call is in it and its sessions are closed too, which
 * stay usable until then. Functions called after that throw IllegalStateException.
 */
class Engine private constructor(private val handle: Handle) : AutoCloseable {
    val info: EngineInfo = handle.use { engine ->
        val integers = IntArray(INTEGERS)
        val seconds = DoubleArray(2)
        Native.check(Native.engineInfo(engine, integers, seconds))
        infoOf(integers, seconds)
    }

    /** The kernels in use: portable, avx2, avx512vnni, amx, neon, neon_dotprod or neon_i8mm. */
    val kernels: String = handle.use { Native.text(Native.engineKernels(it)) }

    /** The bundle's manifest.json as it is in the file. */
    val manifest: String = handle.use { Native.text(Native.engineManifest(it)) }

    /**
     * The ids that [encode] would encode: BOS first, no EOS, and each `<start_of_image>` expanded to a picture's block of
     * tokens.
     *
     * @param imageCount how many pictures go with the text; there must be as many markers.
     * @throws EngineException
     */
    fun sourceIds(text: String, imageCount: Int = 0): IntArray {
        require(imageCount >= 0) { "imageCount: $imageCount; give 0 or more" }
        val ids = arrayOfNulls<IntArray>(1)
        handle.use { Native.check(Native.sourceIds(it, Native.bytes(text), imageCount, ids)) }
        return ids[0]!!
    }

    /** Ids of a target text: no BOS, no EOS, nothing expanded. Throws EngineException. */
    fun targetIds(text: String): IntArray {
        val ids = arrayOfNulls<IntArray>(1)
        handle.use { Native.check(Native.targetIds(it, Native.bytes(text), ids)) }
        return ids[0]!!
    }

    /** Text of ids; unknown ones give nothing. Throws EngineException. */
    fun textOf(ids: IntArray, skipSpecial: Boolean = true): String {
        val text = arrayOfNulls<ByteArray>(1)
        handle.use { Native.check(Native.textOfIds(it, ids, skipSpecial, text)) }
        return Native.text(text[0]!!)
    }

    /**
     * Encodes a source text. Takes the time of the encoder, and of the vision tower for each picture; it can't be cancelled.
     *
     * @param images one for each `<start_of_image>` in the text, in its order.
     * @throws EngineException if the source is longer than `info.maxSource` or the pictures do not match the markers.
     */
    fun encode(text: String, images: List<Image> = emptyList()): Session = encode(Native.bytes(text), null, images)

    /** [encode] of ids, taken as they are: BOS included, and pictures' blocks expanded. */
    fun encode(ids: IntArray, images: List<Image> = emptyList()): Session = encode(null, ids, images)

    private fun encode(text: ByteArray?, ids: IntArray?, images: List<Image>): Session {
        val arrays = Array(images.size) { images[it].bytes() }
        val buffers = Array(images.size) { images[it].direct() }
        val sizes = IntArray(2 * images.size) { if (it % 2 == 0) images[it / 2].width else images[it / 2].height }
        return handle.use { engine ->
            session { Native.sessionNew(engine, text, ids, arrays, buffers, sizes, it) }
        }
    }

    /**
     * Reads what [Session.save] wrote.
     *
     * @throws EngineException if the file is damaged, of another model or quantization, or of a newer format.
     */
    fun loadSession(file: File): Session = handle.use { engine ->
        session { Native.sessionLoad(engine, pathOf(file), it) }
    }

    private fun session(call: (LongArray) -> Int) = Session(Native.new("session", Native::sessionFree, call))

    override fun close() = handle.close()

    companion object {
        private const val INTEGERS = 11

        /** The version of the engine, such as "0.1.0". Throws EngineException if the native library does not load. */
        val version: String
            get() {
                Native.load()
                return Native.text(Native.version())
            }

        /**
         * Opens the bundle in a folder: maps its programs and checks the hash of every file.
         *
         * @param threads of the process's one pool, 1 to 256; 0: as many as are found useful. Other engines use them too.
         * @param cacheFolder where it is remembered which files were hashed, so that an unchanged bundle is hashed once and
         *   not at every start; null: `$XDG_CACHE_HOME/t5g2` or `~/.cache/t5g2`, which an Android app does not have.
         * @throws EngineException if the bundle is missing, truncated, altered, of a newer format, or one that this CPU or
         *   this build of the engine can't run; also where the native library does not load.
         */
        fun open(bundle: File, threads: Int = 0, cacheFolder: File? = null): Engine {
            Native.load()
            val cache = cacheFolder?.let(::pathOf)
            return Engine(Native.new("engine", Native::engineFree) { Native.engineOpen(pathOf(bundle), threads, cache, it) })
        }

        internal fun pathOf(file: File): ByteArray = Native.wholeBytes("a file's name", file.absolutePath)

        private fun infoOf(integers: IntArray, seconds: DoubleArray): EngineInfo {
            var next = 0
            return EngineInfo(
                maxSource = integers[next++],
                maxTarget = integers[next++],
                vocabSize = integers[next++],
                hiddenSize = integers[next++],
                hasTokenizer = integers[next++] != 0,
                hasVision = integers[next++] != 0,
                imageSide = integers[next++],
                imageTokens = integers[next++],
                bosId = integers[next++],
                eosId = integers[next++],
                threads = integers[next],
                readSeconds = seconds[0],
                loadSeconds = seconds[1],
            )
        }
    }
}
