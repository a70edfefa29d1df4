// Package libdeflate unpacks the pixels of PNG files by libdeflate and undoes their
// filters in C, in builds with the tag of that name; without it there is nothing.
//
// It is for files in which nothing is wrong: of others it only says so, and Go's
// image/png, beside which it is tested, has the word. What it makes is no longer than
// it was told, whatever a file says.
//
// Cost of a photo of about 300×240 on one core of a Xeon under load, all of its
// decoding: 0.79 ms of processor time, where image/png takes 3.1 ms (medians of 5, in
// turns).
package libdeflate
