// Both plugins are named here so that they share one class loader: the Android plugin then compiles the app's Kotlin with
// the version that the catalogue gives for the other modules.
plugins {
    alias(libs.plugins.android.application) apply false
    alias(libs.plugins.kotlin.jvm) apply false
}
