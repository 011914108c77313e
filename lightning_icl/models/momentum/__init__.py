"""Models with momentum attention: conversion and settings, the attention function, and its registration."""
