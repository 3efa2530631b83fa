package dev.t5g2.demo

import android.app.Application
import android.content.ComponentCallbacks2

/** Owns what outlives activities: the engine, the models and the presenters, made once in [demo]. */
class DemoApplication : Application() {
    lateinit var demo: Demo
        private set

    override fun onCreate() {
        super.onCreate()
        demo = Demo(this)
    }

    override fun onTrimMemory(level: Int) {
        super.onTrimMemory(level)
        // Leaving the screen alone says nothing about memory, and coming back should not have to open the model again.
        @Suppress("DEPRECATION") // newer systems do not send it, older ones do
        val low = level >= ComponentCallbacks2.TRIM_MEMORY_RUNNING_LOW
        if (low && level != ComponentCallbacks2.TRIM_MEMORY_UI_HIDDEN) demo.host.onTrimMemory()
    }
}
