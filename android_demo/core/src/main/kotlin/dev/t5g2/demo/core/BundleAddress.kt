package dev.t5g2.demo.core

import java.net.MalformedURLException
import java.net.URISyntaxException
import java.net.URL

/** Where a bundle is: the URL of its manifest.json. A query, such as a token, goes along with every file. */
internal class BundleAddress private constructor(private val manifest: URL) {
    val text: String get() = manifest.toString()

    fun manifest(): URL = manifest

    /** The URL of one of its files, which lies beside the manifest. */
    fun file(name: String): URL {
        val path = manifest.path.removeSuffix(BundleManifest.FILE) + name
        return URL(manifest.protocol, manifest.host, manifest.port, path + manifest.query?.let { "?$it" }.orEmpty())
    }

    companion object {
        /** What the user entered: the URL of a manifest.json, or of the folder that it is in. Throws [Failure]. */
        fun of(entered: String): BundleAddress {
            val text = entered.trim()
            val url = try {
                URL(text).also { it.toURI() }
            } catch (_: MalformedURLException) {
                throw notAnAddress(text)
            } catch (_: URISyntaxException) {
                throw notAnAddress(text)
            }
            Http.checkAllowed(url)
            if (url.host.isEmpty()) throw notAnAddress(text)
            if (url.path.endsWith("/" + BundleManifest.FILE)) return BundleAddress(URL(url, url.file))
            val query = url.query?.let { "?$it" }.orEmpty()
            return BundleAddress(URL(url, url.path.removeSuffix("/") + "/" + BundleManifest.FILE + query))
        }

        private fun notAnAddress(text: String) =
            Failure("'$text' is not a web address; give one such as https://example.com/my-model/manifest.json.")
    }
}
