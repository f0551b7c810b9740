import Kernel

/// Ages that leave with their block, and such that come with one.
extension Tracker {
    /// Looks at the block and writes down the ages of its pages as of then. Nil when the
    /// kernel did not let us look.
    func exportHotness(_ region: Region) -> [UInt8]? {
        // Nothing is known of touches after the look, so ages are as of its beginning.
        let now = pager.kernel.now()
        guard visitAll(region) else { return nil }
        let (scale, classOfStamp) = history.classes(at: now)
        var writer = HotnessWriter(pageCount: region.pageCount, scale: scale)
        var page = 0
        while page < region.pageCount {
            let end = region.ages.endOfRun(from: page)
            let stamp = region.ages[page]
            if stamp == AgeMap.absent {
                appendAbsent(region, page..<end, to: &writer)
            } else {
                writer.append(class: classOfStamp[Int(stamp)], pages: end - page)
            }
            page = end
        }
        return writer.finished()
    }

    private func appendAbsent(_ region: Region, _ pages: Range<Int>, to writer: inout HotnessWriter) {
        var page = pages.lowerBound
        while page < pages.upperBound {
            let chunk = region.chunk(of: page)
            let part = (page..<pages.upperBound).clamped(to: region.pages(ofChunk: chunk))
            page = part.upperBound
            // Nothing was ever evicted from a chunk that is not watched.
            guard region.chunks.isWatched(chunk) else {
                writer.append(class: HotnessImage.unknown, pages: part.count)
                continue
            }
            for page in part {
                let isOut = region.table[page].state == .stored
                writer.append(class: isOut ? HotnessImage.out : HotnessImage.unknown, pages: 1)
            }
        }
    }

    /// Gives the block's resident pages the ages that an image says they have now. False
    /// when the kernel did not let us look: then their ages are what they were.
    func importHotness(_ image: HotnessReader, _ region: Region) -> Bool {
        // What was not armed yet looks touched at the first look, and is armed by it: only
        // from then on can a page show that it stays as cold as the image says.
        guard visitAll(region) else { return false }
        let admission = history.admit(
            image.scale, at: pager.kernel.now(), idleAge: pager.settings.idleAge)
        for relabel in admission.relabels {
            pager.regions.forEach { region in
                var counts = [Int](repeating: 0, count: AgeMap.stampCount)
                region.ages.sweep(relabel, into: &counts)
            }
        }
        image.forEachRun { value, pages in
            // A page that arrives at this moment may get an age that is not its own. It is
            // not armed, so the next look puts that right.
            let stamp = admission.stampOfClass[Int(value)]
            if stamp != AgeMap.absent { region.ages.assign(pages, stamp) }
        }
        era += 1
        recount()
        return true
    }
}
