plugins {
    alias(libs.plugins.kotlin.jvm)
}

kotlin {
    compilerOptions {
        jvmTarget = org.jetbrains.kotlin.gradle.dsl.JvmTarget.JVM_1_8
    }
    // Android 8.0, the oldest that the app runs on, has the class library of Java 8 and little more.
    target.compilations.named("main") {
        compileTaskProvider.configure { compilerOptions.freeCompilerArgs.add("-Xjdk-release=1.8") }
    }
}

java {
    sourceCompatibility = JavaVersion.VERSION_1_8
    targetCompatibility = JavaVersion.VERSION_1_8
}

dependencies {
    implementation(project(":engine"))
    compileOnly(libs.json)
    testImplementation(libs.json)
    testImplementation(libs.junit)
}
