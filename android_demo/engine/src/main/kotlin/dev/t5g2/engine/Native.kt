package dev.t5g2.engine

import java.nio.ByteBuffer

/**
 * The functions of t5g2_jni.cpp, each around one of t5g2.h, which says what they do. Pointers are Longs. Text is bytes of
 * UTF-8: JNI has an encoding of its own for Java's strings, in which emoji are not UTF-8. Results go to the first element of
 * arrays that are given for them. Functions that return an Int return a t5g2_status; what [error] says is of the same thread's
 * call before.
 */
internal object Native {
    const val OK = 0
    const val DONE = 1
    const val CANCELLED = 2
    const val ERROR = -1
    const val USAGE = -2

    @JvmStatic external fun version(): ByteArray

    @JvmStatic external fun error(): ByteArray

    @JvmStatic external fun engineOpen(bundle: ByteArray, threads: Int, cacheFolder: ByteArray?, engine: LongArray): Int

    @JvmStatic external fun engineFree(engine: Long)

    /** integers: max_source to threads of t5g2_engine_info, in its order; seconds: read and load. */
    @JvmStatic external fun engineInfo(engine: Long, integers: IntArray, seconds: DoubleArray): Int

    @JvmStatic external fun engineManifest(engine: Long): ByteArray

    @JvmStatic external fun engineKernels(engine: Long): ByteArray

    @JvmStatic external fun sourceIds(engine: Long, text: ByteArray, imageCount: Int, ids: Array<IntArray?>): Int

    @JvmStatic external fun targetIds(engine: Long, text: ByteArray, ids: Array<IntArray?>): Int

    @JvmStatic external fun textOfIds(engine: Long, ids: IntArray, skipSpecial: Boolean, text: Array<ByteArray?>): Int

    /** text or ids; pixels of each image in one of `arrays` and `buffers`; sizes: width and height of each. */
    @JvmStatic external fun sessionNew(
        engine: Long,
        text: ByteArray?,
        ids: IntArray?,
        arrays: Array<ByteArray?>,
        buffers: Array<ByteBuffer?>,
        sizes: IntArray,
        session: LongArray,
    ): Int

    @JvmStatic external fun sessionSave(session: Long, path: ByteArray): Int

    @JvmStatic external fun sessionLoad(engine: Long, path: ByteArray, session: LongArray): Int

    @JvmStatic external fun sessionFree(session: Long)

    @JvmStatic external fun sessionIds(session: Long, ids: Array<IntArray?>): Int

    @JvmStatic external fun sessionScore(session: Long, targetIds: IntArray, logprobs: FloatArray): Int

    @JvmStatic external fun generationStart(
        session: Long,
        maxNewTokens: Int,
        minNewTokens: Int,
        temperature: Float,
        topK: Int,
        topP: Float,
        minP: Float,
        repetitionPenalty: Float,
        noRepeatNgram: Int,
        seed: Long,
        beams: Int,
        lengthPenalty: Float,
        earlyStopping: Boolean,
        prefixText: ByteArray?,
        prefixIds: IntArray,
        stopIds: IntArray,
        stopStrings: Array<ByteArray>,
        suppressedIds: IntArray,
        suppressUnused: Boolean,
        logprobs: Int,
        generation: LongArray,
    ): Int

    /** ids and logprobs: of the token, then of the likeliest ones. */
    @JvmStatic external fun generationNext(
        generation: Long,
        ids: Array<IntArray?>,
        text: Array<ByteArray?>,
        logprobs: Array<FloatArray?>,
    ): Int

    @JvmStatic external fun generationCancel(generation: Long)

    @JvmStatic external fun generationResult(
        generation: Long,
        index: Int,
        text: Array<ByteArray?>,
        ids: Array<IntArray?>,
        finish: IntArray,
        score: DoubleArray,
    ): Int

    @JvmStatic external fun generationFree(generation: Long)

    private val loaded: Unit by lazy {
        try {
            System.loadLibrary("t5g2_jni")
        } catch (error: UnsatisfiedLinkError) {
            throw EngineException("libt5g2_jni.so: does not load (${error.message}); build the app for this device's CPU")
        }
    }

    /** Loads the library, once. Throws EngineException, and again whenever it is called after that. */
    fun load() = loaded

    /** Throws what a status says went wrong; else returns the status. */
    fun check(status: Int): Int {
        if (status >= OK) return status
        val message = text(error())
        throw if (status == USAGE) EngineUsageException(message) else EngineException(message)
    }

    /** The object that `call`, which takes an array for its pointer, makes. */
    fun new(name: String, free: (Long) -> Unit, call: (LongArray) -> Int): Handle {
        val pointer = LongArray(1)
        check(call(pointer))
        return Handle(pointer[0], name, free)
    }

    fun bytes(text: String): ByteArray = text.toByteArray(Charsets.UTF_8)

    fun text(bytes: ByteArray): String = String(bytes, Charsets.UTF_8)

    /** UTF-8 for what C reads up to a NUL. */
    fun wholeBytes(name: String, text: String): ByteArray {
        if ('\u0000' in text) throw EngineUsageException("$name: holds a NUL character; leave it out")
        return bytes(text)
    }
}
