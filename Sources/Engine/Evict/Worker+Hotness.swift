import Kernel

/// Hotness that goes to another pager and comes from one. Control thread; the worker waits
/// meanwhile, the fault server does not.
extension Worker {
    public enum HotnessFailure: Error, Equatable {
        /// The bytes are no image of this block.
        case flaw(HotnessImage.Flaw)
        /// The kernel did not let us look at the block's memory.
        case noLook
    }

    /// The ages of a block's pages as of now, as bytes (`HotnessImage`).
    public func exportHotness(_ region: Region) throws(HotnessFailure) -> [UInt8] {
        guard let image = pager.withWorkerPaused({ tracker.exportHotness(region) }) else { throw .noLook }
        return image
    }

    /// Gives the block's resident pages the ages that `image` says: what it says of the time
    /// before counts for now, so nobody may have used the memory since it was exported.
    /// On failure all ages stay what they were.
    public func importHotness(_ image: [UInt8], into region: Region) throws(HotnessFailure) {
        let reader: HotnessReader
        do {
            reader = try HotnessReader(image, pageCount: region.pageCount)
        } catch {
            throw .flaw(error)
        }
        guard pager.withWorkerPaused({ tracker.importHotness(reader, region) }) else { throw .noLook }
    }
}
