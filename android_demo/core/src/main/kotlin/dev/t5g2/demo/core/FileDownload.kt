package dev.t5g2.demo.core

import java.net.HttpURLConnection
import java.net.URL

/**
 * Downloads one file of a bundle, going on after the bytes that are there.
 *
 * @param version remembers of which version of the file those bytes are, as the server calls it; null: it does not say.
 * @param onProgress told after each piece, with a note where something is out of the ordinary.
 */
internal class FileDownload(
    private val url: URL,
    private val file: VerifiedFile,
    private val version: Version,
    private val http: Http,
    private val retry: Retry,
    private val stopper: Stopper,
    private val onProgress: (note: String?) -> Unit,
) {
    interface Version {
        var value: String?
    }

    private val wanted = file.wanted
    private var whole = true // all of it came in one answer, so that a wrong hash is the server's fault
    private var ranges = true // the server has not refused to send a part

    /** Throws [Failure], and [Stopped] when the stopper says so. */
    fun run() {
        file.resume {
            stopper.check()
            onProgress("checking what is there")
        }
        whole = file.length == 0L
        while (true) {
            if (file.length < wanted.size) retry.run({ file.length }, onProgress, ::fetch)
            if (file.isRight()) return
            file.discard()
            if (whole) {
                throw Failure(
                    "${wanted.name} from ${url.host} does not have the sha256 of the manifest: it was altered or replaced; " +
                        "put all files of one export there.",
                )
            }
        }
    }

    private fun fetch() {
        while (true) {
            val continued = http.get(url, headers()).use { answer -> begin(answer).also { if (it) receive(answer) } }
            if (continued) return
        }
    }

    private fun headers(): Map<String, String> {
        if (!ranges) file.restart()
        if (file.length == 0L) return emptyMap()
        return listOfNotNull("Range" to "bytes=${file.length}-", version.value?.let { "If-Range" to it }).toMap()
    }

    /** Whether what comes goes on after what is there, or is all of it; else the file is to be asked for as a whole. */
    private fun begin(answer: HttpAnswer): Boolean {
        if (answer.code == HttpURLConnection.HTTP_OK) {
            file.restart()
            whole = true
            checkLength(answer.length)
            version.value = answer.version
            return true
        }
        val range = answer.range
        if (answer.code == Http.NOT_SATISFIABLE || range == null || range.first != file.length) {
            if (file.length == 0L) throw Failure("${url.host} does not send all of $url; check the server.")
            ranges = false
            return false
        }
        whole = false
        checkLength(range.second)
        return true
    }

    private fun checkLength(length: Long?) {
        if (length == null || length == wanted.size) return
        file.discard()
        throw wrongSize("$length")
    }

    private fun receive(answer: HttpAnswer) {
        val buffer = ByteArray(VerifiedFile.BUFFER)
        onProgress(null)
        while (true) {
            val count = http.read(answer, buffer)
            if (count < 0) break
            if (!file.write(buffer, count)) {
                file.discard()
                throw wrongSize("more")
            }
            onProgress(null)
            stopper.check()
        }
        if (file.length < wanted.size) {
            throw Transient("${url.host} sent only ${file.length} of the ${wanted.size} bytes of ${wanted.name}")
        }
    }

    private fun wrongSize(bytes: String) = Failure(
        "$url has $bytes bytes where the manifest says ${wanted.size}: it was replaced; put all files of one export there.",
    )
}
