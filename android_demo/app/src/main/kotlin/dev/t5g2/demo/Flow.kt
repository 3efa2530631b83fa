package dev.t5g2.demo

import android.content.Context
import android.util.AttributeSet
import android.view.View
import android.view.ViewGroup
import kotlin.math.max

/** Lays children out one after the other, and goes on in a new line where they do not fit: buttons, at any size of font. */
class Flow @JvmOverloads constructor(context: Context, attributes: AttributeSet? = null) : ViewGroup(context, attributes) {
    private val gap = resources.getDimensionPixelSize(R.dimen.line_gap)

    /** Where a child goes, from the start of the line and the top; set by measuring. */
    class Place : MarginLayoutParams {
        var start = 0
        var top = 0

        constructor(context: Context, attributes: AttributeSet?) : super(context, attributes)
        constructor(other: ViewGroup.LayoutParams) : super(other)
    }

    override fun generateLayoutParams(attributes: AttributeSet?) = Place(context, attributes)

    override fun generateLayoutParams(other: LayoutParams) = Place(other)

    override fun generateDefaultLayoutParams() = Place(LayoutParams(LayoutParams.WRAP_CONTENT, LayoutParams.WRAP_CONTENT))

    override fun checkLayoutParams(params: LayoutParams?) = params is Place

    override fun onMeasure(widthSpec: Int, heightSpec: Int) {
        val room = when (MeasureSpec.getMode(widthSpec)) {
            MeasureSpec.UNSPECIFIED -> Int.MAX_VALUE
            else -> MeasureSpec.getSize(widthSpec) - paddingLeft - paddingRight
        }
        var start = 0
        var top = 0
        var lineHeight = 0
        var widest = 0
        for (child in visibleChildren()) {
            measureChildWithMargins(child, widthSpec, 0, heightSpec, 0)
            val place = child.layoutParams as Place
            val width = child.measuredWidth + place.marginStart + place.marginEnd
            if (start > 0 && start + width - place.marginEnd > room) {
                top += lineHeight + gap
                start = 0
                lineHeight = 0
            }
            place.start = start + place.marginStart
            place.top = top + place.topMargin
            start += width
            widest = max(widest, start)
            lineHeight = max(lineHeight, child.measuredHeight + place.topMargin + place.bottomMargin)
        }
        setMeasuredDimension(
            resolveSize(widest + paddingLeft + paddingRight, widthSpec),
            resolveSize(top + lineHeight + paddingTop + paddingBottom, heightSpec),
        )
    }

    override fun onLayout(changed: Boolean, left: Int, top: Int, right: Int, bottom: Int) {
        val mirrored = layoutDirection == View.LAYOUT_DIRECTION_RTL
        for (child in visibleChildren()) {
            val place = child.layoutParams as Place
            val x = if (mirrored) width - paddingRight - place.start - child.measuredWidth else paddingLeft + place.start
            val y = paddingTop + place.top
            child.layout(x, y, x + child.measuredWidth, y + child.measuredHeight)
        }
    }

    private fun visibleChildren() = (0 until childCount).map(::getChildAt).filter { it.visibility != View.GONE }
}
