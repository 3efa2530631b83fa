package dev.t5g2.demo

import android.content.ContentProvider
import android.content.ContentValues
import android.content.Context
import android.database.Cursor
import android.database.MatrixCursor
import android.net.Uri
import android.os.ParcelFileDescriptor
import android.provider.OpenableColumns
import java.io.File
import java.io.FileNotFoundException

/**
 * Lends two files to other apps, by URIs that are granted one at a time: one that the camera writes, one with a benchmark's
 * report. Nothing else can be reached through it, whatever a URI says.
 */
class SharedFiles : ContentProvider() {

    enum class Shared(val fileName: String, val type: String) {
        CAMERA("camera.jpg", "image/jpeg"),
        REPORT("t5g2-benchmark.json", "application/json"),
    }

    override fun onCreate() = true

    override fun getType(uri: Uri): String? = shared(uri)?.type

    /** Throws [FileNotFoundException] for any URI but the two, and for a file that is not there. */
    override fun openFile(uri: Uri, mode: String): ParcelFileDescriptor {
        val shared = shared(uri) ?: throw FileNotFoundException("$uri is not shared")
        return ParcelFileDescriptor.open(file(existingContext(), shared), ParcelFileDescriptor.parseMode(mode))
    }

    override fun query(
        uri: Uri,
        projection: Array<String>?,
        selection: String?,
        selectionArgs: Array<String>?,
        sortOrder: String?,
    ): Cursor? {
        val shared = shared(uri) ?: return null
        val columns = projection ?: arrayOf(OpenableColumns.DISPLAY_NAME, OpenableColumns.SIZE)
        val row = columns.map { column ->
            when (column) {
                OpenableColumns.DISPLAY_NAME -> shared.fileName
                OpenableColumns.SIZE -> file(existingContext(), shared).length()
                else -> null
            }
        }
        return MatrixCursor(columns, 1).apply { addRow(row) }
    }

    override fun insert(uri: Uri, values: ContentValues?): Uri? = null

    override fun update(uri: Uri, values: ContentValues?, selection: String?, selectionArgs: Array<String>?) = 0

    override fun delete(uri: Uri, selection: String?, selectionArgs: Array<String>?) = 0

    private fun existingContext(): Context = checkNotNull(context) { "not created yet" }

    private fun shared(uri: Uri) = Shared.entries.firstOrNull { uri.path == "/${it.fileName}" }

    companion object {
        /** Where the file is; its folder exists. */
        fun file(context: Context, shared: Shared): File =
            File(File(context.cacheDir, "shared").apply { mkdirs() }, shared.fileName)

        /** For an intent that also grants reading or writing it. */
        fun uri(context: Context, shared: Shared): Uri =
            Uri.Builder().scheme("content").authority("${context.packageName}.files").appendPath(shared.fileName).build()
    }
}
