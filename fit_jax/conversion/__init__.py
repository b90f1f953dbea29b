"""Models between Hugging Face, this project and PEFT: conversion, and the proof that nothing changed on the way."""
