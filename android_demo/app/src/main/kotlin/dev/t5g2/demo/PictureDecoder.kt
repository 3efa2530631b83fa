package dev.t5g2.demo

import android.content.ContentResolver
import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Canvas
import android.graphics.Color
import android.graphics.ColorSpace
import android.graphics.ImageDecoder
import android.graphics.Matrix
import android.graphics.Paint
import android.media.ExifInterface
import android.net.Uri
import android.os.Build
import dev.t5g2.demo.core.Picture
import java.io.IOException
import java.nio.ByteBuffer
import kotlin.math.abs
import kotlin.math.max
import kotlin.math.roundToInt

/**
 * Decodes a picture of any format that the system knows: upright as its EXIF data say, in sRGB, laid over white, and no larger
 * than [LONGEST_SIDE], a little more than models look at. Takes time and about three times 4 bytes a pixel of the result:
 * not for the main thread.
 */
class PictureDecoder(private val resolver: ContentResolver) {

    /** Throws [IOException] for what is not a picture or cannot be opened, and [SecurityException] for what may not be. */
    fun decode(uri: Uri): Picture {
        if (Build.VERSION.SDK_INT >= Build.VERSION_CODES.P) {
            val bitmap = ImageDecoder.decodeBitmap(ImageDecoder.createSource(resolver, uri)) { decoder, info, _ ->
                val size = Size(info.size.width, info.size.height).fitted()
                decoder.setTargetSize(size.width, size.height)
                decoder.setTargetColorSpace(ColorSpace.get(ColorSpace.Named.SRGB))
                decoder.allocator = ImageDecoder.ALLOCATOR_SOFTWARE
            }
            return picture(bitmap, Size(bitmap.width, bitmap.height), Matrix())
        }
        val bitmap = sampled(uri)
        val turn = turn(orientation(uri))
        val upright = if (turn.swapsSides()) Size(bitmap.height, bitmap.width) else Size(bitmap.width, bitmap.height)
        val size = upright.fitted()
        turn.preTranslate(-bitmap.width / 2f, -bitmap.height / 2f)
        turn.postScale(size.width.toFloat() / upright.width, size.height.toFloat() / upright.height)
        turn.postTranslate(size.width / 2f, size.height / 2f)
        return picture(bitmap, size, turn)
    }

    private data class Size(val width: Int, val height: Int) {
        /** As large as allowed; never enlarged, never empty. */
        fun fitted(): Size {
            val scale = LONGEST_SIDE.toDouble() / max(width, height)
            if (scale >= 1) return this
            return Size(max(1, (width * scale).roundToInt()), max(1, (height * scale).roundToInt()))
        }
    }

    /** Draws [bitmap] onto white and takes the pixels, whose bytes are in the order R, G, B, A. */
    private fun picture(bitmap: Bitmap, size: Size, turn: Matrix): Picture {
        val flat = Bitmap.createBitmap(size.width, size.height, Bitmap.Config.ARGB_8888)
        Canvas(flat).apply {
            drawColor(Color.WHITE)
            drawBitmap(bitmap, turn, Paint(Paint.FILTER_BITMAP_FLAG))
        }
        bitmap.recycle()
        val rgba = ByteArray(size.width * size.height * 4)
        flat.copyPixelsToBuffer(ByteBuffer.wrap(rgba))
        flat.recycle()
        return Picture(rgba, size.width, size.height)
    }

    /** Before Android 9: reduced by a power of two while decoding, to no less than what is kept. */
    private fun sampled(uri: Uri): Bitmap {
        val options = BitmapFactory.Options().apply { inJustDecodeBounds = true }
        open(uri).use { BitmapFactory.decodeStream(it, null, options) }
        options.inJustDecodeBounds = false
        options.inSampleSize = 1
        while (max(options.outWidth, options.outHeight) / (options.inSampleSize * 2) >= LONGEST_SIDE) options.inSampleSize *= 2
        options.inPreferredColorSpace = ColorSpace.get(ColorSpace.Named.SRGB)
        return open(uri).use { BitmapFactory.decodeStream(it, null, options) } ?: throw IOException("$uri is not a picture")
    }

    private fun orientation(uri: Uri): Int = try {
        open(uri).use { ExifInterface(it).getAttributeInt(ExifInterface.TAG_ORIENTATION, ExifInterface.ORIENTATION_NORMAL) }
    } catch (_: IOException) {
        ExifInterface.ORIENTATION_NORMAL // a format without EXIF data
    }

    private fun turn(orientation: Int) = Matrix().apply {
        when (orientation) {
            ExifInterface.ORIENTATION_FLIP_HORIZONTAL -> setScale(-1f, 1f)
            ExifInterface.ORIENTATION_ROTATE_180 -> setRotate(180f)
            ExifInterface.ORIENTATION_FLIP_VERTICAL -> setScale(1f, -1f)
            ExifInterface.ORIENTATION_TRANSPOSE -> {
                setRotate(90f)
                postScale(-1f, 1f)
            }
            ExifInterface.ORIENTATION_ROTATE_90 -> setRotate(90f)
            ExifInterface.ORIENTATION_TRANSVERSE -> {
                setRotate(-90f)
                postScale(-1f, 1f)
            }
            ExifInterface.ORIENTATION_ROTATE_270 -> setRotate(-90f)
        }
    }

    /** Whether it turns by a quarter: then x comes from y. */
    private fun Matrix.swapsSides(): Boolean {
        val values = FloatArray(9).also(::getValues)
        return abs(values[Matrix.MSKEW_X]) > 0.5f
    }

    private fun open(uri: Uri) = resolver.openOrThrow(uri)

    companion object {
        /** In pixels. */
        const val LONGEST_SIDE = 1024
    }
}
