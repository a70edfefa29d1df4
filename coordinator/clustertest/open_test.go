package clustertest_test

// What the program does not survive yet. Where that can be seen, a test fails
// when an entry begins to pass; then it must go. In the end nothing is left here.

// knownOpen are histories that the program does not survive yet. One that begins
// to pass must be taken off the list: the test says so.
var knownOpen = map[string]bool{}

// openFaults are faults at a point, "host what kind", in TestExhaustive.
var openFaults = map[string]bool{}

// openTroubles are kinds of trouble that the program does not survive yet.
var openTroubles []string
