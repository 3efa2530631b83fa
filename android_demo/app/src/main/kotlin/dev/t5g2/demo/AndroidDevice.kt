package dev.t5g2.demo

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import dev.t5g2.demo.core.DeviceState
import dev.t5g2.demo.core.Memory

/** What the system says of memory, heat and battery. Any thread. */
class AndroidDevice(private val context: Context) {

    fun memory(): Memory {
        val info = ActivityManager.MemoryInfo()
        context.getSystemService(ActivityManager::class.java).getMemoryInfo(info)
        return Memory(totalBytes = info.totalMem, availableBytes = info.availMem)
    }

    fun state(): DeviceState {
        // A sticky broadcast: the last one is returned at once, and no receiver stays behind.
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        val tenths = battery?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, UNKNOWN) ?: UNKNOWN
        val percent = context.getSystemService(BatteryManager::class.java)
            .getIntProperty(BatteryManager.BATTERY_PROPERTY_CAPACITY)
        return DeviceState(
            thermal = thermal(),
            batteryPercent = percent.takeIf { it in 0..100 },
            batteryCelsius = tenths.takeIf { it != UNKNOWN }?.let { it / 10.0 },
            charging = battery?.getIntExtra(BatteryManager.EXTRA_PLUGGED, UNKNOWN)?.takeIf { it != UNKNOWN }?.let { it != 0 },
        )
    }

    /** Names as in the report, in whatever language the screen is. */
    private fun thermal(): String? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
        return when (context.getSystemService(PowerManager::class.java).currentThermalStatus) {
            PowerManager.THERMAL_STATUS_NONE -> NONE
            PowerManager.THERMAL_STATUS_LIGHT -> LIGHT
            PowerManager.THERMAL_STATUS_MODERATE -> MODERATE
            PowerManager.THERMAL_STATUS_SEVERE -> SEVERE
            else -> CRITICAL
        }
    }

    companion object {
        const val NONE = "none"
        const val LIGHT = "light"
        const val MODERATE = "moderate"
        const val SEVERE = "severe"

        /** Also for "emergency" and "shutdown", which an app hardly lives to report. */
        const val CRITICAL = "critical"

        private const val UNKNOWN = Int.MIN_VALUE
    }
}
