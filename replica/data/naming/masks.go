package naming

import (
	"path"
	"slices"
	"strings"
)

// systemFolders are what file servers and systems put among images, in lower case.
var systemFolders = []string{
	"@eadir", "@tmp", "@recycle", "@recently-snapshot", "@sharebin", "#recycle", "#snapshot", "lost+found",
	"$recycle.bin", "recycler", "system volume information", "__macosx", "thumbnails", "_thumbnails", "thumbs", "_thumbs", "__pycache__",
}

// systemFiles are likewise.
var systemFiles = []string{"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}

// Skipped says why something of a name is left out wherever it stands, "" when it is
// not.
func Skipped(name string) Reason {
	lower := strings.ToLower(name)
	switch {
	case strings.HasPrefix(name, "."):
		return Hidden
	case slices.Contains(systemFolders, lower), slices.Contains(systemFiles, lower), strings.HasPrefix(lower, "synophoto_thumb"):
		return System
	}
	return ""
}

// maskWords say, behind an image's name, that a file is about that image.
var maskWords = []string{
	"mask", "masks", "seg", "segm", "segmentation", "semantic", "instance", "instances", "panoptic", "label", "labels", "labelids", "labeltrainids", "annotation",
	"annotations", "gt", "groundtruth", "trimap", "matte", "alpha", "depth", "disp", "disparity", "normal", "normals", "flow", "edge", "edges", "heatmap", "saliency",
	"thumb", "thumbnail", "thumbs", "preview",
}

// MaskOf is the stem of the image that a file of a stem is a mask of: "cat" of
// cat_mask, cat.seg, cat-depth_2; "" when the name says no such thing.
func MaskOf(stem string) string {
	s := strings.TrimRight(strings.TrimRight(stem, "0123456789"), "_-")
	for _, s := range []string{stem, s} {
		at := strings.LastIndexAny(s, "._- ")
		if at > 0 && slices.Contains(maskWords, strings.ToLower(s[at+1:])) {
			return s[:at]
		}
	}
	return ""
}

// MasksAmong are the images of a folder, by their names in it, that are masks, depth
// maps or thumbnails of others: those with a word for it behind the other's name; and
// the PNG files where each of them is a JPEG file's namesake.
func MasksAmong(names []string) map[string]bool {
	masks := make(map[string]bool)
	stems := make(map[string]bool)
	jpegs := make(map[string]bool)
	for _, name := range names {
		ext := path.Ext(name)
		stem := strings.TrimSuffix(name, ext)
		stems[stem] = true
		switch strings.ToLower(ext) {
		case ".jpg", ".jpeg", ".jpe", ".jfif":
			jpegs[stem] = true
		}
	}
	pngs, namesakes := 0, 0
	for _, name := range names {
		ext := path.Ext(name)
		stem := strings.TrimSuffix(name, ext)
		if of := MaskOf(stem); of != "" && stems[of] {
			masks[name] = true
		} else if strings.EqualFold(ext, ".png") {
			pngs++
			if jpegs[stem] {
				namesakes++
			}
		}
	}
	if pngs == 0 || namesakes < pngs {
		return masks
	}
	for _, name := range names {
		if strings.EqualFold(path.Ext(name), ".png") {
			masks[name] = true
		}
	}
	return masks
}

// imageFolders and maskFolders are names of folders that lie beside each other, of
// which the first hold images and the second what is about them.
var (
	imageFolders = []string{"images", "image", "imgs", "img", "jpegimages", "rgb", "photos", "pictures"}
	maskFolders  = []string{
		"mask", "masks", "annotation", "annotations", "trimap", "trimaps", "segmentation", "segmentations", "segmentationclass", "segmentationobject", "seg",
		"depth", "depths", "depth_maps", "labels", "gt", "groundtruth", "ground_truth", "disparity", "normals",
	}
)

// MaskFoldersAmong are the folders, of some that lie beside each other, of masks.
func MaskFoldersAmong(names []string) map[string]bool {
	masks := make(map[string]bool)
	if !slices.ContainsFunc(names, func(n string) bool { return slices.Contains(imageFolders, strings.ToLower(n)) }) {
		return masks
	}
	for _, n := range names {
		if slices.Contains(maskFolders, strings.ToLower(n)) {
			masks[n] = true
		}
	}
	return masks
}

// IsImage says whether a file is an image by its name.
func IsImage(name string) bool {
	switch strings.ToLower(path.Ext(name)) {
	case ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff":
		return true
	}
	return false
}
