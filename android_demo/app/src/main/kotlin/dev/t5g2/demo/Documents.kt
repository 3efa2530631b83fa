package dev.t5g2.demo

import android.content.ContentResolver
import android.net.Uri
import android.provider.OpenableColumns
import java.io.FileNotFoundException
import java.io.InputStream

/**
 * Opens what the system's file picker, or another app, handed over; off the main thread. Throws [FileNotFoundException], also
 * where the app may not open it any more.
 */
fun ContentResolver.openOrThrow(uri: Uri): InputStream = try {
    openInputStream(uri)
} catch (_: SecurityException) {
    null
} ?: throw FileNotFoundException("$uri cannot be opened any more")

/** The name that the user knows a document by, or [otherwise] where its owner does not tell; asks another process. */
fun ContentResolver.nameOf(uri: Uri, otherwise: String): String = try {
    query(uri, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)?.use { row ->
        if (row.moveToFirst()) row.getString(0) else null
    } ?: otherwise
} catch (_: RuntimeException) {
    otherwise // an owner that does not answer such questions
}
